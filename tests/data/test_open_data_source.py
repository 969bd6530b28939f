import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from mrcnn_jax.config import Config, DataConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
from mrcnn_jax.data.records import RecordSource, prepare_records


def config_of(root, **changes):
    paths = {"train_images": "images", "train_annotations": "instances.json"}
    paths |= {"val_images": "images", "val_annotations": "instances.json"}
    return Config(data=DataConfig(root=str(root), mask_grid=4, **paths | changes))


@pytest.fixture
def three(folder):
    """Three images, of which the last is damaged."""
    for name in ("a.png", "b.png", "c.png"):
        folder.add_object(folder.add_image(name=name))
    (folder.root / "images" / "c.png").write_bytes(b"no image")
    folder.write()
    return folder


def test_all_validation_images_are_checked_whatever_skip_bad_says(three):
    (three.root / "images" / "b.png").write_bytes(b"")
    for skip_bad in (False, True):
        with pytest.raises(ValueError) as error:
            open_validation_source(config_of(three.root, skip_bad=skip_bad))
        first, _, *rows = str(error.value).splitlines()
        assert first.endswith("an evaluation needs all images, so data.skip_bad does not apply")
        assert ["b.png" in row or "c.png" in row for row in rows] == [True, True]
    assert open_data_source(config_of(three.root, skip_bad=True)).ids.tolist() == [1]


def test_nearly_black_images_are_kept_with_a_warning(folder):
    folder.add_object(folder.add_image(np.full((10, 20, 3), 15, np.uint8)))
    folder.write()
    source = open_data_source(config_of(folder.root))
    assert source.ids.tolist() == [1] and [finding.warning for finding in source.findings] == [True]
    validation = open_validation_source(config_of(folder.root))
    assert validation.ids.tolist() == [1] and validation.findings == source.findings


def test_images_beyond_the_first_are_not_checked(three):
    source = open_validation_source(config_of(three.root), count=2)
    assert source.ids.tolist() == [1, 2]
    assert [item.id for item in source.annotations(1)] == [2]
    assert source.read(1).pixels.shape == (10, 20, 3)


def test_an_invalid_annotation_of_the_validation_set_is_an_error(three):
    three.add_object(1, iscrowd=2)
    three.write()
    with pytest.raises(ValueError, match=r"instances\.json +1 +4  iscrowd must be 0 or 1, got 2"):
        open_validation_source(config_of(three.root, skip_bad=True), count=2)


def test_records_take_the_place_of_the_folder(three):
    dataset = read_coco(three.root, images="images", annotations="instances.json")
    path, _ = prepare_records(dataset, three.root / "made", mask_grid=12, num_workers=1, skip_bad=True)
    config = config_of(three.root, val_records=str(path.relative_to(three.root)), val_annotations="absent")
    source = open_validation_source(config, count=1)  # masks may be of another size than in training
    assert isinstance(source, RecordSource) and source.ids.tolist() == [1]
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train_records="absent"))
    assert open_validation_source(config).ids.tolist() == [1, 2]
    with pytest.raises(ValueError, match="absent: not random-access records"):
        open_data_source(config)


@pytest.mark.slow  # starts a process
def test_a_folder_is_evaluated_without_tensorflow(three):
    code = (
        "import sys\n"
        "from mrcnn_jax.config import Config, DataConfig\n"
        "from mrcnn_jax.data.open_data_source import open_validation_source\n"
        "data = DataConfig(val_images='images', val_annotations='instances.json')\n"
        f"data.root = {str(three.root)!r}\n"
        "source = open_validation_source(Config(data=data), count=2)\n"
        "import mrcnn_jax.evaluation.coco_eval\n"
        "assert len(source.ids) == 2 and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
