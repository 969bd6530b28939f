import json

import numpy as np

from mrcnn_jax.data.coco import read_coco
from tests.scale.generate import ANNOTATIONS, IMAGES, KEYPOINTS, Counts, generate

SCALE = 0.002


def test_the_counts_are_exact_and_nothing_is_found_wrong(tmp_path):
    counts = Counts().scaled(SCALE)
    assert counts == Counts(images=237, empty_images=2, objects=1720, persons=525, crowds=20)
    generate(tmp_path, counts, seed=0)
    dataset = read_coco(tmp_path, images=IMAGES, annotations=ANNOTATIONS, keypoints=KEYPOINTS)
    assert dataset.findings == () and len(dataset.categories) == 80
    objects = [item for image in dataset.images for item in image.annotations]
    assert len(dataset.images) == 237 and len(objects) == 1720
    assert len(list((tmp_path / IMAGES).iterdir())) == 237
    assert sum(not image.annotations for image in dataset.images) == 2
    assert sum(item.label == 1 for item in objects) == 525
    persons = json.loads((tmp_path / KEYPOINTS).read_text())["annotations"]
    labelled = sum(person["num_keypoints"] > 0 for person in persons)
    assert len(persons) == 525 and 0.5 < labelled / 525 < 0.7
    assert sum(item.keypoints is not None for item in objects) == labelled
    assert sum(item.crowd for item in objects) == 20
    points = [sum(map(len, item.segmentation)) for item in objects if not item.crowd]
    assert 22 < np.mean(points) < 26  # 23.7 at full size


def test_the_seed_decides_all(tmp_path):
    def files(name, seed):
        generate(tmp_path / name, Counts().scaled(SCALE / 10), seed=seed)
        return {
            path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()
        }

    first = files("first", 1)
    assert files("again", 1) == first and files("other", 2) != first


def test_files_of_images_can_be_as_large_as_cocos(tmp_path):
    generate(
        tmp_path, Counts(images=3, empty_images=0, objects=3, persons=0, crowds=0), seed=0, image_bytes=9000
    )
    assert {path.stat().st_size for path in (tmp_path / IMAGES).iterdir()} == {9000}
    assert json.loads((tmp_path / KEYPOINTS).read_text())["annotations"] == []
