import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.affine import rotated_size
from mrcnn_jax.data.augment import expected_area, random_crop, random_transform
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.data.summary import expected_canvases, format_summary, summarise

CONFIG = DataConfig(
    train_short_sides=(10, 20), long_side=40, canvases=((20, 40), (40, 20)), max_objects=2, mask_grid=4
)
CROWD = {"size": [10, 20], "counts": [150, 50]}


@pytest.fixture
def source(folder):
    """Three images of 10x20 (height x width), one of 20x10 and one of 10x10."""
    several = folder.add_image()
    folder.add_object(several)  # a dog of 16 square pixels
    folder.add_object(several, area=32**2)
    folder.add_object(several, area=96**2, category_id=3, keypoints=[])
    folder.add_object(several, iscrowd=1, segmentation=CROWD, keypoints=[0] * 9)
    folder.add_object(several, bbox=[-9, 0, 5, 5])  # outside
    folder.add_object(folder.add_image(), area=96**2 - 1)
    folder.add_image()
    folder.add_object(folder.add_image(size=(20, 10), write=False, name="1.png"))
    crowds = folder.add_image(size=(10, 10), write=False, name="1.png")
    folder.add_object(crowds, iscrowd=1, segmentation=None, keypoints=[0] * 9)
    return FolderSource(read_coco(**folder.write()), mask_grid=4)


def test_counts_by_hand(source):
    summary = summarise(source, CONFIG, keypoints=True)
    assert summary.categories == ("car", "dog")
    assert summary.objects.tolist() == [[0, 0, 1, 0], [2, 2, 0, 2]]
    assert summary.images_of_category.tolist() == [1, 4]
    assert (summary.num_images, summary.empty, summary.only_crowds, summary.trained) == (5, 1, 1, 3)
    assert summary.overfull == 1
    assert len(summary.sides) == summary.objects[:, :3].sum() == 5
    assert summary.num_objects.tolist() == [4, 1, 0, 1, 1] and summary.sizes[3].tolist() == [20, 10]


def test_canvases_and_padding_by_hand(source):
    summary = summarise(source, CONFIG, keypoints=True)
    assert summary.canvases == {(20, 40): 2 / 3, (40, 20): 1 / 3}
    # With a short side of 10 an image covers 200 of 800 pixels, with 20 all of them.
    assert summary.padding == pytest.approx(1 - (0.25 + 1) / 2)

    kept = summarise(source, dataclasses.replace(CONFIG, keep_empty=True), keypoints=True)
    assert kept.trained == 5
    assert kept.canvases == {(20, 40): 4 / 5, (40, 20): 1 / 5}
    # The square image covers 100 or 400 pixels.
    assert kept.padding == pytest.approx(1 - (4 * 500 + 250) / (5 * 800))


def test_formatted_summary(source):
    lines = format_summary(summarise(source, CONFIG, keypoints=True)).splitlines()
    assert lines[0] == f"{source.name}: 5 images, 7 objects"
    assert [line.split() for line in lines[2:6]] == [
        ["category", "images", "objects", "small", "medium", "large", "crowds"],
        ["dog", "4", "6", "2", "2", "0", "2"],
        ["car", "1", "1", "0", "0", "1", "0"],
        ["all", "4", "7", "2", "2", "1", "2"],
    ]
    assert "images without objects: 1; with crowds only: 1; not used in training: 2" in lines
    assert "images with more than 2 objects: 1" in lines
    assert "canvas 20x40: 66.7% of the batches" in lines
    assert lines[-1].startswith("padding: 37.5% ")


@pytest.mark.parametrize("jitter", [(), (0.1, 2.0)])
def test_expected_area_is_the_mean_over_random_transforms(jitter):
    config = dataclasses.replace(CONFIG, scale_jitter=jitter)
    rng = np.random.default_rng(0)
    areas = [np.prod(random_transform(rng, (13, 20), (20, 40), config).size) for _ in range(4000)]
    assert expected_area((13, 20), (20, 40), config) == pytest.approx(np.mean(areas), rel=0.03)


@pytest.mark.parametrize("jitter", [(), (0.1, 2.0)])
def test_expected_area_of_parts_and_turned_images(jitter):
    settings = {"crop": "relative_range", "crop_size": (0.7, 0.4), "rotation": 40.0, "scale_jitter": jitter}
    config = dataclasses.replace(CONFIG, canvases=((40, 40),), **settings)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(3000):
        _, _, *part = random_crop(rng, (13, 20), config)
        shape = rotated_size(tuple(part), rng.uniform(-40, 40))[::-1]
        areas.append(np.prod(random_transform(rng, shape, (40, 40), config).size))
    found = expected_area((13, 20), (40, 40), config, turned=True)
    assert found == pytest.approx(np.mean(areas), rel=0.1)  # from few samples


def test_turned_images_are_on_the_turned_canvas():
    """Of two wide images and a square one, half of the batches are turned."""
    config = dataclasses.replace(CONFIG, quarter_turns=True, canvases=((20, 40), (40, 20)), scale_jitter=())
    sizes = np.array([[10, 20], [10, 20], [20, 20]])
    canvases, padding = expected_canvases(sizes, config)
    assert canvases == {(20, 40): pytest.approx(4 / 6), (40, 20): pytest.approx(2 / 6)}
    assert 0 < padding < 1


def test_no_images(folder):
    summary = summarise(FolderSource(read_coco(**folder.write()), mask_grid=4), CONFIG, keypoints=True)
    assert (summary.num_images, summary.canvases, summary.padding) == (0, {}, 0.0)
    assert format_summary(summary).startswith(f"{summary.name}: 0 images, 0 objects\n")
