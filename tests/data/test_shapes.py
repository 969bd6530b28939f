import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_jax.data import shapes_scene
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.data.shapes import _annotation, make_shapes
from mrcnn_jax.rle import Rle

SETTINGS = {"train": 30, "val": 4, "image_size": 96, "seed": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("data") / "shapes"
    assert make_shapes(output, **SETTINGS)
    return output


@pytest.fixture(scope="module")
def dataset(made):
    return read_coco(made, images="train", annotations="annotations/instances_train.json")


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    make_shapes(tmp_path / "again", **SETTINGS)
    assert digests(tmp_path / "again") == digests(made)
    make_shapes(tmp_path / "other", **SETTINGS | {"seed": 6})
    assert digests(tmp_path / "other")["train/000001.jpg"] != digests(made)["train/000001.jpg"]


def test_the_number_of_processes_changes_no_byte(made, tmp_path):
    seen = []
    assert make_shapes(tmp_path / "again", **SETTINGS, workers=2, progress=seen.append)
    assert digests(tmp_path / "again") == digests(made)
    assert seen == list(range(1, 35))


def test_a_picture_does_not_depend_on_how_many_there_are(made, tmp_path):
    make_shapes(tmp_path / "few", **SETTINGS | {"train": 2})
    assert digests(tmp_path / "few")["train/000002.jpg"] == digests(made)["train/000002.jpg"]
    assert digests(made)["train/000001.jpg"] != digests(made)["val/000001.jpg"]


def test_is_a_coco_dataset(made, dataset):
    assert len(dataset.images) == 30
    assert dataset.categories.names == ("circle", "square", "triangle", "figure")
    assert dataset.categories.keypoint_labels == (4,)
    assert dataset.categories.flip_pairs == ((2, 3), (4, 5), (7, 8))
    assert dataset.categories.sigmas == (0.08,) * 9
    objects = [item for image in dataset.images for item in image.annotations]
    assert {item.label for item in objects} == {1, 2, 3, 4} and any(item.crowd for item in objects)
    assert {type(item.segmentation) for item in objects} == {tuple, Rle}
    assert all(1 <= sum(not item.crowd for item in image.annotations) <= 7 for image in dataset.images)
    with Image.open(dataset.images[0].path) as picture:
        assert picture.size == (96, 96)


def test_pycocotools_reads_the_same_masks(made, dataset, capsys):
    coco = COCO(str(made / "annotations" / "instances_train.json"))
    capsys.readouterr()
    for image in dataset.images[:6]:
        for item in image.annotations:
            entry = coco.anns[item.id]
            expected = rasterise(item.segmentation, (0.0, 0.0, 96.0, 96.0), 96).astype(bool)
            mask = Rle.from_json(
                {"size": [96, 96], "counts": coco.annToRLE(entry)["counts"].decode()}
            ).decode()
            # The two differ where an edge is close to a pixel centre: in a tenth of the smallest shapes.
            assert (mask & expected).sum() / (mask | expected).sum() > 0.85
            assert abs(int(expected.sum()) / entry["area"] - 1) < 0.15


def test_boxes_contain_their_masks_and_masks_their_keypoints(dataset):
    for image in dataset.images:
        for item in image.annotations:
            mask = rasterise(item.segmentation, (0.0, 0.0, 96.0, 96.0), 96)
            x1, y1, x2, y2 = shapes_scene.mask_bounds(mask)
            np.testing.assert_allclose(item.box, (x1, y1, x2, y2), atol=2)  # a sharp tip covers no centre
            assert min(item.box[2] - item.box[0], item.box[3] - item.box[1]) >= 5
            if item.keypoints is not None:
                visible = item.keypoints[item.keypoints[:, 2] == 2]
                assert mask[visible[:, 1].astype(int), visible[:, 0].astype(int)].mean() > 0.9


def test_the_left_limbs_are_on_the_right_of_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(100):
        points = shapes_scene._figure(rng, 1.0, [(0, 0, 0)]).keypoints
        # Along the figure's own horizontal, perpendicular to its spine.
        spine = points[shapes_scene.KEYPOINTS.index("hip")] - points[shapes_scene.KEYPOINTS.index("neck")]
        across = points @ np.array([spine[1], -spine[0]])
        for left, right in ((2, 3), (4, 5), (7, 8)):
            assert across[left] > across[right]


def test_occluded_and_outside_keypoints():
    size = 20
    figure = shapes_scene.SceneObject(
        "figure", [], [], keypoints=np.array([[5.0, 5.0], [15.0, 5.0], [25.0, 5.0]])
    )
    figure.mask = np.ones((size, size), bool)
    figure.visible = np.arange(size)[None] < np.full((size, 1), 10)
    figure.polygons = [np.array([[0.0, 0.0], [size, 0.0], [size, size], [0.0, size]])]
    entry = _annotation(figure)
    assert entry["keypoints"] == [5, 5, 2, 15, 5, 1, 0, 0, 0] and entry["num_keypoints"] == 2
    assert entry["bbox"] == [0, 0, 10, 20] and entry["area"] == 200
    assert entry["segmentation"] == {"size": [20, 20], "counts": [0, 200, 200]}


def test_nothing_is_overwritten(made, tmp_path):
    before = digests(made)
    assert not make_shapes(made, **SETTINGS)
    with pytest.raises(ValueError, match=r"holds a dataset with other settings.*'seed': 5.*'seed': 7"):
        make_shapes(made, **SETTINGS | {"seed": 7})
    assert digests(made) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="mine: is neither empty nor made by this program"):
        make_shapes(tmp_path / "mine", **SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is a file"):
        make_shapes(tmp_path / "file", **SETTINGS)
    with pytest.raises(ValueError, match=r"image_size \(8\) at least 32"):
        make_shapes(tmp_path / "tiny", **SETTINGS | {"image_size": 8})


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, workers):
    def interrupt(done):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "shapes", **SETTINGS, workers=workers, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_annotations_are_plain_json(made):
    content = json.loads((made / "annotations" / "instances_val.json").read_text())
    assert [entry["id"] for entry in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    for entry in content["annotations"]:
        if "keypoints" in entry:
            assert len(entry["keypoints"]) == 27
            assert entry["num_keypoints"] == sum(value > 0 for value in entry["keypoints"][2::3])
