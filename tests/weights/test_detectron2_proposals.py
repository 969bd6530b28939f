"""Files of proposals as Detectron2's ``COCOEvaluator`` pickles them, and Detectron's."""

import os
import pickle

import numpy as np
import pytest

from mrcnn_jax.weights.detectron2_proposals import read_detectron2_proposals

BOXES = [np.array([[1, 2, 3, 5], [0, 0, 9, 9]], np.float32), np.zeros((0, 4), np.float32)]
LOGITS = [np.array([0.5, -1], np.float32), np.zeros(0, np.float32)]


def read(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return list(read_detectron2_proposals(path))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("names", [("ids", "objectness_logits"), ("indexes", "scores")])
def test_a_file_by_hand(tmp_path, protocol, names):
    content = {names[0]: [139, 285], "boxes": BOXES, names[1]: LOGITS}
    (first, proposals), (second, none) = read(tmp_path / "p.pkl", content, protocol)
    assert (first, second) == (139, 285) and len(none.boxes) == 0
    assert proposals.boxes.tolist() == [[1, 2, 3, 5], [0, 0, 9, 9]]
    assert proposals.objectness.tolist() == [0.5, -1]
    assert proposals.boxes.dtype == proposals.objectness.dtype == np.float32


@pytest.mark.parametrize(("mode", "box"), [(0, [1, 2, 3, 5]), (1, [1, 2, 4, 7])])
@pytest.mark.parametrize("kind", [int, np.int64])
def test_modes_of_boxes(tmp_path, mode, box, kind):
    content = {"ids": [kind(4)], "boxes": BOXES[:1], "objectness_logits": LOGITS[:1], "bbox_mode": kind(mode)}
    ((image_id, proposals),) = read(tmp_path / "p.pkl", content)
    assert image_id == 4 and proposals.boxes[0].tolist() == box


def test_ids_as_text(tmp_path):
    content = {"ids": ["4"], "boxes": BOXES[:1], "objectness_logits": [LOGITS[0][:, None]]}
    assert read(tmp_path / "p.pkl", content)[0][0] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [4]}, "1 ids, 2 boxes and 2 objectness_logits"),
        ({"ids": [4, 4.5]}, r"image '4\.5': expected an integer"),
        ({"boxes": None}, "must have lists"),
        ({"boxes": [BOXES[0], 5]}, "image '5': expected an array, found int"),
        ({"boxes": [BOXES[0][:1], BOXES[1]]}, r"image '4': boxes \[1, 4\] must be \[2 4\]"),
        ({"boxes": [BOXES[0] * np.nan, BOXES[1]]}, "image '4': .* not finite"),
        ({"boxes": [BOXES[0].astype(int), BOXES[1]]}, "image '4': an array is int64"),
        ({"bbox_mode": 3}, "bbox_mode is 3"),
    ],
)
def test_damaged_files(tmp_path, changes, message):
    content = {"ids": [4, 5], "boxes": BOXES, "objectness_logits": LOGITS} | changes
    with pytest.raises(ValueError, match=rf"p\.pkl: .*{message}"):
        read(tmp_path / "p.pkl", content)


def test_no_code_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(ValueError, match=r"p\.pkl: is not a file of Detectron2's proposals: it refers to"):
        read(tmp_path / "p.pkl", {"ids": [Evil()]})
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="it holds a list"):
        read(tmp_path / "p.pkl", [1])
