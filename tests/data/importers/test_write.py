import json

import pytest

from mrcnn_jax.data.importers.write import write_new


def test_writes_a_new_file_completely_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_new(path, {"images": [float("nan")]})
    assert list(tmp_path.iterdir()) == []
    write_new(path, {"images": [1]})
    with pytest.raises(FileExistsError):
        write_new(path, {"images": []})
    assert json.loads(path.read_text()) == {"images": [1]} and list(tmp_path.iterdir()) == [path]
