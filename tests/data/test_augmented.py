"""Training examples by augmentations of whole masks, from the source to the batch."""

import dataclasses
import importlib.util
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig, ModelConfig, presets
from mrcnn_jax.data import augmented, pipeline
from mrcnn_jax.data.augment import crop_sizes, example_generator, sizes_before_crop
from mrcnn_jax.data.augmented import mean_colour, needs_scene
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.pipeline import load_example, training_batches, training_canvas
from mrcnn_jax.data.records import RecordSource, prepare_records
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.proposals import ImageProposals, read_proposals, write_proposals

GRID = 16
ALL = {
    "crop": "relative_range", "crop_size": (0.6, 0.6), "crop_share": 0.8, "crop_short_sides": (16, 30),
    "rotation": 30.0, "copy_paste": 0.7, "erase": 0.5,
    "quarter_turns": True, "flip_vertical": True, "colour_jitter": True,
}  # fmt: skip
FIELDS = ("boxes", "labels", "crowd", "valid", "masks", "mask_boxes", "keypoints")


def config(**changes):
    settings = {
        "train_short_sides": (24, 32), "long_side": 64, "canvases": ((64, 64),), "max_objects": 6,
        "mask_grid": GRID,
    }  # fmt: skip
    return DataConfig(**(settings | changes))


@pytest.fixture
def dogs(folder):
    """Six images of noise with one to three dogs, one of them an RLE, and a crowd."""
    rng = np.random.default_rng(0)
    for number in range(6):
        shape = (20, 40, 3) if number < 4 else (40, 20, 3)
        image = folder.add_image(rng.integers(1, 256, shape).astype(np.uint8))
        for more in range(1 + number % 3):
            x, y = rng.uniform(0, 8, 2).round(1).tolist()
            width = 10 + 2 * more
            triangle = [x, y, x + width, y + 0.7, x + 2.3, y + 9]
            folder.add_object(
                image, bbox=[x, y, width, 9], segmentation=[triangle],
                keypoints=[x + 1, y + 1, 2, x + 4, y + 1, 2, x + 1, y + 4, 1],
            )  # fmt: skip
        if number == 0:
            counts = [45, 9, 11, 9, 800 - 74]  # columns 2 and 3, rows 5 to 13
            rle = {"size": [20, 40], "counts": counts}
            folder.add_object(image, bbox=[2, 5, 2, 9], segmentation=rle, keypoints=[])
        if number == 1:
            rle = {"size": [20, 40], "counts": [600, 100, 100]}
            folder.add_object(image, bbox=[30, 0, 5, 20], segmentation=rle, iscrowd=1, keypoints=[])
    return folder


def source_of(folder):
    return FolderSource(read_coco(**folder.write()), mask_grid=GRID)


def batches(source, data, **changes):
    options = {"batch_size": 4, "seed": 5, "masks": True, "keypoints": True} | changes
    return training_batches(source, data, **options)


def assert_same(one, other):
    for name in ("images", "image_sizes", "ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one.gt, name), getattr(other.gt, name), err_msg=name)


def noise(example, generator):
    image = example.image + generator.integers(0, 9, example.image.shape, np.uint8)
    return dataclasses.replace(example, image=image)


def test_a_batch_is_a_function_of_seed_and_step(dogs):
    source, data = source_of(dogs), config(**ALL)
    iterator, again = (batches(source, data, augment=noise) for _ in range(2))
    first = [next(iterator) for _ in range(4)]
    for batch in first:
        assert_same(batch, next(again))
    assert_same(first[3], next(batches(source, data, augment=noise, start_step=3)))
    other = next(batches(source, data, augment=noise, seed=6))
    assert (other.images != first[0].images).any()


def test_processes_load_rows_of_the_same_batch(dogs):
    source, data = source_of(dogs), config(**ALL)
    whole = batches(source, data)
    parts = [batches(source, data, process_index=index, process_count=4) for index in range(4)]
    for _ in range(3):
        batch, rows = next(whole), [next(part) for part in parts]
        np.testing.assert_array_equal(batch.images, np.concatenate([row.images for row in rows]))
        for name in FIELDS:
            wanted = np.concatenate([getattr(row.gt, name) for row in rows])
            np.testing.assert_array_equal(getattr(batch.gt, name), wanted, err_msg=name)


def test_records_give_the_same_batches(dogs):
    dataset = read_coco(**dogs.write())
    path, _ = prepare_records(dataset, dogs.root / "records", mask_grid=GRID, num_workers=1)
    data = config(**ALL)
    found, wanted = (
        batches(source, data, augment=noise)
        for source in (RecordSource(path, mask_grid=GRID), FolderSource(dataset, mask_grid=GRID))
    )
    for _ in range(4):
        assert_same(next(found), next(wanted))
    (path / "annotations.jsonl").unlink()
    with pytest.raises(ValueError, match=r"annotations\.jsonl: .*remake them with mrcnn-jax prepare"):
        batches(RecordSource(path, mask_grid=GRID), data)


@pytest.mark.parametrize("changes", [{"crop": "relative", "crop_size": (1.0, 1.0)}, {"copy_paste": 1e-9}])
@pytest.mark.parametrize("jitter", [(), (0.3, 2.0)])
def test_both_ways_to_make_an_example_agree(dogs, changes, jitter):
    """A crop of all of the image changes nothing, nor does a paste that does not come about."""
    source = source_of(dogs)
    settings = {"flip_vertical": True, "quarter_turns": True, "scale_jitter": jitter, "keypoint_offset": 0.5}
    plain, scene = config(**settings), config(**settings, **changes)
    assert needs_scene(scene) and not needs_scene(plain)
    one, other = next(batches(source, plain)), next(batches(source, scene))
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.gt.valid, other.gt.valid)
    assert one.gt.valid.sum() > 5
    if jitter:  # the canvas cuts some; their boxes then hug what is left of the mask
        assert (other.gt.boxes[..., 2:] - other.gt.boxes[..., :2]).sum() < (
            one.gt.boxes[..., 2:] - one.gt.boxes[..., :2]
        ).sum()
        return
    for name in ("boxes", "mask_boxes", "keypoints"):
        np.testing.assert_allclose(getattr(other.gt, name), getattr(one.gt, name), atol=2e-4)
    np.testing.assert_array_equal(other.gt.labels, one.gt.labels)
    np.testing.assert_array_equal(other.gt.crowd, one.gt.crowd)
    # Of the RLE, which is sampled at the pixels of the canvas, cells at the edge may differ.
    differ = (other.gt.masks != one.gt.masks).mean(axis=(2, 3))
    assert (differ > 0).sum() <= 1 and differ.max() < 0.15


def test_a_first_resize_moves_all_that_is_annotated(dogs):
    """To twice the size; then all of that is cut out."""
    source = source_of(dogs)
    plain = config(crop="relative", crop_size=(1.0, 1.0), keypoint_offset=0.5, train_long_side=80)
    resized = dataclasses.replace(plain, crop_short_sides=(40,))
    one, other = next(batches(source, plain)), next(batches(source, resized))
    np.testing.assert_array_equal(one.image_sizes, other.image_sizes)
    assert one.gt.valid.sum() > 5 and (one.images != other.images).any()
    for name in ("boxes", "mask_boxes", "keypoints", "labels", "crowd"):
        np.testing.assert_allclose(getattr(other.gt, name), getattr(one.gt, name), atol=2e-4)
    assert (other.gt.masks != one.gt.masks).mean() < 0.01


def _area(polygon):
    x, y = polygon.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


MMDETECTION = Path(__file__).parents[1] / "fixtures/mmdetection_crop.py"


def _mmdetection_cases():
    return json.loads(MMDETECTION.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    "case", _mmdetection_cases(), ids=lambda case: f"{case['image']}-{case['short_side']}"
)
def test_the_recipe_with_crops_makes_of_images_what_mmdetection_makes(case, folder, monkeypatch):
    """With its draws: sizes, pixels, boxes without masks, areas of masks."""
    spec = importlib.util.spec_from_file_location(MMDETECTION.stem, MMDETECTION)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pixels, corners = script.picture(case["image"])
    image = folder.add_image(pixels)
    for x in corners.reshape(-1, 3, 2):
        box = [*x.min(axis=0), *(x.max(axis=0) - x.min(axis=0))]
        folder.add_object(image, bbox=list(map(float, box)), segmentation=[x.ravel().tolist()], keypoints=[])
    data = presets.adamw_3x("swin_t").data
    data.resize, data.flip, data.train_short_sides = "mmdetection", False, (case["short_side"],)

    def random_part(generator, size, config):
        before = sizes_before_crop(size, config)[case["first"]]
        assert all(
            low <= side <= high
            for side, (low, high) in zip(case["crop"][2:], crop_sizes(before, config), strict=True)
        )
        return before, tuple(case["crop"])

    monkeypatch.setattr(augmented, "random_part", random_part)
    dataset = source_of(folder)
    canvas = training_canvas(tuple(case["image"]), data)
    boxes = load_example(
        dataset, 0, data, generator=example_generator(0, 0), canvas=canvas, masks=False, keypoints=False
    )
    assert boxes["image_sizes"].tolist() == case["size"]
    found = [boxes["images"][y, x] for y, x in script.PLACES if y < case["size"][0] and x < case["size"][1]]
    np.testing.assert_array_equal(found, case["pixels"])
    rows = boxes["boxes"][boxes["valid"]].tolist()  # the largest objects first
    np.testing.assert_allclose(sorted(rows), sorted(case["boxes"]), atol=1e-3)
    loader = augmented.SceneLoader(
        dataset, data, augmented.Extras(), rule="mmdetection", masks=True, keypoints=False
    )
    scene, _ = loader._placed(0, example_generator(0, 0), canvas, False)
    areas = [sum(_area(part) for part in item.segmentation) for item in scene.items]
    np.testing.assert_allclose(areas, [area for area in case["areas"] if area], rtol=1e-3)


def test_a_pasted_object_is_in_the_picture_and_in_the_rows(folder):
    """Two images of one colour, each with a square of another: both squares in front of either colour."""
    for colour, place in (((10, 20, 30), 2), ((200, 100, 50), 24)):
        pixels = np.full((32, 64, 3), colour, np.uint8)
        pixels[place : place + 6, place : place + 8] = np.array(colour) + 40
        corners = [place, place, place + 8, place, place + 8, place + 6, place, place + 6]
        folder.add_object(
            folder.add_image(pixels), bbox=[place, place, 8, 6], segmentation=[corners], keypoints=[]
        )
    source = source_of(folder)
    data = config(train_short_sides=(32,), copy_paste=1.0, flip=False)
    iterator, seen = batches(source, data), set()
    for _ in range(6):
        batch = next(iterator)
        for row, image in enumerate(batch.images):
            boxes = batch.gt.boxes[row][batch.gt.valid[row]]
            colours = {tuple(image[int(y1) + 1, int(x1) + 1]) for x1, y1, _, _ in boxes}
            assert colours <= {(50, 60, 70), (240, 140, 90)} and len(boxes) == len(colours)
            squares = [(image == colour).all(axis=2) for colour in colours]
            assert sum(int(square.sum()) for square in squares) == len(boxes) * 48
            seen.add((tuple(image[16, 16]), len(boxes)))
    assert seen == {((10, 20, 30), 1), ((10, 20, 30), 2), ((200, 100, 50), 1), ((200, 100, 50), 2)}


def test_pasted_objects_share_rows_if_there_are_too_few(dogs):
    batch = next(batches(source_of(dogs), config(copy_paste=1.0, max_objects=3)))
    assert batch.gt.boxes.shape == (4, 3, 4) and batch.gt.valid.all(axis=1).any()
    assert batch.gt.crowd[batch.gt.valid.all(axis=1)].any()


def test_without_masks_and_keypoints(dogs):
    batch = next(batches(source_of(dogs), config(**ALL), masks=False, keypoints=False))
    assert batch.gt.masks is None and batch.gt.keypoints is None and batch.gt.valid.any()


def test_proposals_are_moved_with_the_image(dogs, tmp_path):
    """Of each image the boxes of its objects, in order."""
    dogs.content["annotations"] = [
        x for x in dogs.content["annotations"] if isinstance(x["segmentation"], list)
    ]
    source = source_of(dogs)
    rows = [
        (int(image_id), ImageProposals(source.objects(k).boxes, np.arange(len(source.objects(k)), 0.0, -1)))
        for k, image_id in enumerate(source.ids)
    ]
    write_proposals(tmp_path / "p.npz", rows)
    proposals = read_proposals(tmp_path / "p.npz").of_images(source.ids, source.sizes, source=source.name)
    options = {"proposals": proposals, "num_proposals": 4}
    data = config(crop="relative", crop_size=(0.8, 0.8), quarter_turns=True, flip_vertical=True)
    batch = next(batches(source, data, masks=False, **options))
    for row in range(4):
        boxes = batch.gt.boxes[row][batch.gt.valid[row]]
        found = batch.proposals.boxes[row][batch.proposals.valid[row]]
        order, other = np.lexsort(boxes.T), np.lexsort(found.T)
        np.testing.assert_allclose(found[other], boxes[order], atol=1e-4)
    with pytest.raises(ValueError, match="augment must be None with proposals"):
        batches(source, data, augment=noise, **options)


def test_an_own_function_runs_on_every_image_once(dogs):
    calls, lock = [], threading.Lock()

    def count(example, generator):
        with lock:
            calls.append((example.image.shape, generator.integers(1 << 30)))
        return example

    source = source_of(dogs)
    for index in range(2):
        load_example(
            source, index, config(), generator=np.random.default_rng(index), canvas=(64, 64), masks=True,
            keypoints=True, extras=pipeline.Extras(augment=count),
        )  # fmt: skip
    assert [shape for shape, _ in calls] == [(20, 40, 3)] * 2 and calls[0][1] != calls[1][1]


def test_errors_of_an_own_function_name_the_image(dogs):
    def broken(example, generator):
        return dataclasses.replace(example, labels=example.labels + 9)

    with pytest.raises(ValueError, match=r"\.png: what the function broken makes of it: labels must be from"):
        next(batches(source_of(dogs), config(), augment=broken))


def test_the_mean_colour_is_rgb():
    assert mean_colour(ModelConfig()) == (124, 116, 104)
    bgr = ModelConfig(pixel_order="bgr", pixel_mean=(103.53, 116.28, 123.675))
    assert mean_colour(bgr) == (124, 116, 104)
