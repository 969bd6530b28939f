import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import DataConfig, presets
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.pipeline import training_batches, training_canvas
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.proposals import ImageProposals, read_proposals, write_proposals


def config(**changes):
    settings = {
        "train_short_sides": (24, 32),
        "long_side": 64,
        "canvases": ((32, 64), (64, 32)),
        "max_objects": 3,
        "mask_grid": 4,
    }
    return DataConfig(**(settings | changes))


def batches(folder, data=None, **changes):
    arguments = {"batch_size": 2, "seed": 0, "start_step": 0, "masks": True, "keypoints": True} | changes
    data = data or config()
    return training_batches(
        FolderSource(read_coco(**folder.write()), mask_grid=data.mask_grid), data, **arguments
    )


def assert_equal(batch, other):
    for value, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


@pytest.fixture
def mixed(folder):
    """Five wide and three tall images, each with one object."""
    for number in range(8):
        shape = (10, 20, 3) if number < 5 else (20, 10, 3)
        pixels = np.random.default_rng(number).integers(1, 256, shape).astype(np.uint8)
        folder.add_object(folder.add_image(pixels))
    return folder


def test_by_hand_at_original_size(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3)).astype(np.uint8)
    image = folder.add_image(pixels)
    folder.add_object(image)
    data = config(train_short_sides=(10,), canvases=((16, 24),), flip=False)
    batch = next(batches(folder, data, batch_size=1))
    assert batch.images.shape == (1, 16, 24, 3) and batch.images.dtype == np.uint8
    np.testing.assert_array_equal(batch.images[0, :10, :20], pixels)
    assert not batch.images[0, 10:].any() and not batch.images[0, :, 20:].any()
    assert batch.image_sizes.tolist() == [[10, 20]] and batch.image_sizes.dtype == np.int32
    assert batch.ids.tolist() == [image] and batch.ids.dtype == np.int64
    assert batch.gt.boxes[0, 0].tolist() == [2, 1, 10, 5]
    assert batch.gt.labels.tolist() == [[2, 0, 0]] and batch.gt.valid.tolist() == [[True, False, False]]
    assert batch.gt.masks.shape == (1, 3, 4, 4) and batch.gt.masks[0, 0, 0].tolist() == [1, 1, 1, 0]
    assert batch.gt.keypoints[0, 0].tolist() == [[3, 2, 2], [6, 1, 1], [0, 0, 0]]


def test_flips_pixels_and_objects_alike(folder):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[1:5, 2:10] = 255  # where the object's box is
    folder.add_object(folder.add_image(pixels))
    data = config(train_short_sides=(10,), canvases=((16, 24),))
    seen = set()
    iterator = batches(folder, data, batch_size=1)
    for _ in range(12):
        batch = next(iterator)
        x1, y1, x2, y2 = batch.gt.boxes[0, 0].astype(int)
        assert (batch.images[0, y1:y2, x1:x2] == 255).all() and batch.images.sum() == 3 * 255 * 32
        seen.add(int(x1))
    assert seen == {2, 10}


def test_starting_at_a_step_equals_iterating_to_it(mixed):
    iterator = batches(mixed)
    for _ in range(7):
        next(iterator)
    resumed = batches(mixed, start_step=7)
    for _ in range(3):
        assert_equal(next(resumed), next(iterator))


def test_starting_at_a_late_step_reads_no_more_images(mixed, monkeypatch):
    for step in (0, 100_000):
        source = FolderSource(read_coco(**mixed.write()), mask_grid=4)
        reads = []

        def read(index, source=source, reads=reads):
            reads.append(index)
            return FolderSource.read(source, index)

        monkeypatch.setattr(source, "read", read)
        options = {"batch_size": 2, "seed": 0, "masks": True, "keypoints": True}
        next(training_batches(source, config(), start_step=step, **options))
        assert 2 <= len(reads) < 1000  # including prefetched ones, a few per core


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_load_disjoint_rows_of_the_same_batch(mixed, hosts):
    whole = batches(mixed, batch_size=4)
    parts = [batches(mixed, batch_size=4, process_index=index, process_count=hosts) for index in range(hosts)]
    for _ in range(4):
        shares = [next(part) for part in parts]
        batch = next(whole)
        for share in shares:  # the canvas is the same
            assert share.images.shape == (4 // hosts, *batch.images.shape[1:])
        assert_equal(jax.tree.map(lambda *rows: np.concatenate(rows), *shares), batch)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_see_every_image_and_share_the_canvas(mixed, hosts):
    parts = [batches(mixed, batch_size=4, process_index=index, process_count=hosts) for index in range(hosts)]
    ids, shapes = {(32, 64, 3): [], (64, 32, 3): []}, []
    for _ in range(8):  # as many steps as images: four passes
        step = [next(part) for part in parts]
        (shape,) = {batch.images.shape[1:] for batch in step}
        shapes.append(shape)
        ids[shape].extend(number for batch in step for number in batch.ids.tolist())
    # Five wide images and three tall ones: passes continue across batches of four.
    for shape, members in (((32, 64, 3), range(1, 6)), ((64, 32, 3), range(6, 9))):
        assert shapes.count(shape) == len(members)
        passes = np.array(ids[shape]).reshape(4, len(members))
        assert np.sort(passes, axis=1).tolist() == [list(members)] * 4


@pytest.mark.parametrize("jitter", [(), (0.1, 0.1)])
def test_pixels_of_both_rules(folder, jitter):
    """torchvision's rule gives floats without antialiasing, unless scale jitter is on."""
    lines = np.zeros((40, 40, 3), np.uint8)
    lines[:, 4::10] = lines[:, 5::10] = 255
    folder.add_object(folder.add_image(lines))
    data = config(train_short_sides=(4,), canvases=((40, 40),), scale_jitter=jitter, resize="torchvision")
    batch = next(batches(folder, data, batch_size=1))
    assert batch.image_sizes.tolist() == [[4, 4]]
    shown = batch.images[0, :4, :4]
    if jitter:
        assert shown.dtype == np.uint8 and (shown > 30).all() and (shown < 70).all()
    else:
        # Only the two middle columns of every ten contribute.
        assert shown.dtype == np.float32 and (shown == 255).all()


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((480, 640), (800, 1088)),
        ((427, 640), (800, 1216)),  # resized to 800 x 1199
        ((360, 640), (800, 1344)),
        ((640, 480), (1088, 800)),
        ((640, 427), (1344, 800)),
        ((500, 500), (800, 1088)),
    ],
)
def test_canvas_is_the_smallest_that_holds_the_largest_training_size(size, canvas):
    assert training_canvas(size, DataConfig()) == canvas
    assert training_canvas(size, DataConfig(scale_jitter=(0.1, 2.0))) == (800, 1344)  # the first


def test_the_longest_side_of_training_alone(mixed):
    """Wide images of twice their height, for which 32 x 64 are allowed otherwise."""
    data = config(train_short_sides=(32,), train_long_side=40)
    assert training_canvas((480, 960), data) == (32, 64)
    batch = next(batches(mixed, data))
    assert batch.image_sizes.max() == 40
    longer = DataConfig(train_long_side=1440, canvases=((800, 1344), (800, 1440)))
    assert training_canvas((480, 960), longer) == (800, 1440)


def test_canvases_of_turned_images_and_of_parts():
    turns = DataConfig(quarter_turns=True)
    assert training_canvas((480, 640), turns) == (800, 1088)
    assert training_canvas((480, 640), turns, turned=True) == (1088, 800)
    # Turned by up to 45 degrees, an image becomes no longer.
    assert training_canvas((360, 640), DataConfig(rotation=45.0)) == (800, 1344)
    canvases = (*DataConfig().canvases, (1344, 1344))
    for sides, size, canvas in (
        ((0.9, 0.9), (480, 640), (800, 1216)),  # 432 x 640 becomes 800 x 1185
        ((0.9, 0.9), (500, 520), (1344, 1344)),  # 520 x 450 or 468 x 520: either side may be the short one
        ((0.5, 0.5), (480, 640), (1344, 1344)),
    ):
        config = DataConfig(crop="relative_range", crop_size=sides, canvases=canvases)
        assert training_canvas(size, config) == canvas
    recipe = presets.adamw_3x("swin_t").data
    # A part of 600 x 384 becomes 1250 x 800; all of the second image 800 x 1333.
    assert training_canvas((480, 640), recipe) == (1280, 1280)
    assert training_canvas((360, 640), recipe) == (1344, 1344)
    fixed = DataConfig(crop="relative", crop_size=(1.0, 0.5))
    assert training_canvas((480, 640), fixed) == (1344, 800)  # 480 x 320 becomes 1200 x 800


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "relative_range", "crop_size": (0.3, 0.6)},
        {"crop": "absolute_range", "crop_size": (4.0, 9.0)},
        {"crop": "absolute_range", "crop_size": (4.0, 9.0), "crop_share": 0.5, "crop_short_sides": (7, 13)},
        {"crop": "relative_range", "crop_size": (0.3, 0.6), "rotation": 45.0, "quarter_turns": True},
        {"rotation": 45.0},
        {"quarter_turns": True},
    ],
)
def test_no_image_is_shrunk_to_its_canvas(mixed, changes):
    """The short side, or else the long one, is as long as it is asked to be."""
    data = config(canvases=((32, 64), (64, 32), (64, 64)), train_short_sides=(32,), **changes)
    iterator = batches(mixed, data)
    shapes = set()
    for _ in range(24):
        batch = next(iterator)
        shapes.add(batch.images.shape[1:3])
        short, long = batch.image_sizes.min(axis=1), batch.image_sizes.max(axis=1)
        assert ((short == 32) | (long == 64)).all()
    assert (64, 64) in shapes or len(shapes) == 2


@pytest.mark.parametrize("hosts", [1, 2])
def test_every_image_is_seen_as_often_upright_as_turned(mixed, hosts):
    """Five wide images and three tall ones are eight of each, of which none is seen twice before all are."""
    data = config(quarter_turns=True, flip=False)
    parts = [
        batches(mixed, data, batch_size=2, process_index=index, process_count=hosts) for index in range(hosts)
    ]
    seen = {(32, 64): [], (64, 32): []}
    for _ in range(16):  # as many steps as images, upright or turned: two of each
        step = [next(part) for part in parts]
        (shape,) = {batch.images.shape[1:3] for batch in step}
        seen[shape] += [int(number) for batch in step for number in batch.ids]
    for shape in seen:
        assert sorted(seen[shape]) == sorted([*range(1, 9)] * 2)


def test_without_masks_and_keypoints(mixed):
    batch = next(batches(mixed, masks=False, keypoints=False))
    assert batch.gt.masks is None and batch.gt.keypoints is None


def test_images_without_objects_are_skipped_unless_kept(folder):
    folder.add_image()  # empty
    folder.add_object(folder.add_image(), iscrowd=1, segmentation={"size": [10, 20], "counts": [150, 50]})
    folder.add_object(folder.add_image())
    iterator = batches(folder)
    assert {int(next(iterator).ids[row]) for _ in range(4) for row in range(2)} == {3}
    iterator = batches(folder, config(keep_empty=True))
    seen = {}
    for _ in range(3):
        batch = next(iterator)
        seen |= {
            int(i): (v.sum(), c.sum())
            for i, v, c in zip(batch.ids, batch.gt.valid, batch.gt.crowd, strict=True)
        }
    assert seen == {1: (0, 0), 2: (1, 1), 3: (1, 0)}


def test_no_image_to_train_on_is_an_error(folder):
    folder.add_image()
    rule = r"instances\.json: none of its 1 images has an object to train on"
    with pytest.raises(
        ValueError, match=f"{rule}; images without objects are left out unless data.keep_empty"
    ):
        batches(folder)
    folder.add_object(1, iscrowd=1)
    with pytest.raises(ValueError, match=f"{rule}; all 1 are crowds; data.crowds_are_objects trains on them"):
        batches(folder)


def exif_rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"name": "rotated.jpg", "size": (20, 10), "exif": exif}


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (Image.new("RGB", (1, 1), (9, 9, 9)), {}),
        (Image.new("RGB", (50, 10000), (9, 9, 9)), {}),
        (Image.new("L", (20, 10), 9), {}),
        (Image.new("RGBA", (20, 10), (9, 9, 9, 0)), {}),
        (Image.new("CMYK", (20, 10), (0, 0, 0, 246)), {"name": "cmyk.jpg"}),
        (Image.new("RGB", (20, 10), (9, 9, 9)), exif_rotated()),
    ],
    ids=["1x1", "10000x50", "grayscale", "RGBA", "CMYK", "EXIF"],
)
def test_unusual_images(folder, picture, options):
    image = folder.add_image(picture, **options)
    folder.add_object(image, bbox=[0, 0, picture.width, picture.height])
    batch = next(batches(folder, batch_size=1))
    height, width = batch.image_sizes[0]
    assert abs(batch.images[0, :height, :width].astype(int) - 9).max() <= 2
    assert batch.gt.valid[0, 0] and batch.gt.boxes[0, 0, 2] - batch.gt.boxes[0, 0, 0] > 0
    assert batch.gt.boxes[0, 0, 2] <= width and batch.gt.boxes[0, 0, 3] <= height


def test_a_damaged_image_is_named(folder):
    folder.add_object(folder.add_image(name="good.png"))
    folder.add_object(folder.add_image(name="cut.png"))
    cut = folder.root / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:300])
    iterator = batches(folder)
    with pytest.raises(ValueError, match=r"cut\.png: cannot be read") as caught:
        for _ in range(5):
            next(iterator)
    assert len(str(caught.value).splitlines()) == 1


def test_a_size_that_differs_from_the_annotation_is_an_error(folder):
    folder.add_object(folder.add_image(size=(20, 10)), segmentation=[[0, 0, 5, 5, 0, 5]])
    with pytest.raises(
        ValueError,
        match=r"1\.png: image 1 of .*instances\.json: the file has 10x20 .*, the annotations say 20x10",
    ):
        next(batches(folder))


def test_missing_masks_or_keypoints_are_an_error(folder):
    folder.content["categories"] = [{"id": 7, "name": "dog"}]
    folder.add_object(folder.add_image(), segmentation=[], keypoints=[])
    with pytest.raises(ValueError, match=r"no category has keypoints; set model\.keypoint to False"):
        batches(folder, masks=False)
    rle = {"size": [10, 20], "counts": [150, 50]}
    folder.add_object(1, iscrowd=1, segmentation=rle, keypoints=[])  # a crowd's mask does not count
    with pytest.raises(ValueError, match=r"no object has a segmentation; set model\.mask to False"):
        batches(folder, keypoints=False)
    with pytest.raises(
        ValueError, match=r"batch size \(3\) must be divisible by the number of processes \(2\)"
    ):
        batches(folder, batch_size=3, process_count=2)


def test_some_objects_may_lack_a_mask(folder):
    image = folder.add_image()
    folder.add_object(image)
    folder.add_object(image, segmentation=[[1, 1, 2, 2]], bbox=[0, 0, 2, 2])
    masks = next(batches(folder, batch_size=1)).gt.masks[0]
    assert masks[0].any() and not masks[1:].any()


@pytest.mark.slow
def test_a_fresh_process_is_quiet_and_exits_with_an_iterator_in_use(mixed):
    mixed.write()
    code = (
        "from mrcnn_jax.config import DataConfig\n"
        "from mrcnn_jax.data.coco import read_coco\n"
        "from mrcnn_jax.data.pipeline import training_batches\n"
        "from mrcnn_jax.data.source import FolderSource\n"
        f"dataset = read_coco({str(mixed.root)!r}, images='images', annotations='instances.json')\n"
        "source = FolderSource(dataset, mask_grid=112)\n"
        "options = {'batch_size': 2, 'seed': 0, 'masks': True, 'keypoints': True}\n"
        "batches = training_batches(source, DataConfig(), **options)\n"
        "print(next(batches).images.shape)\n"
    )
    # As in a user's shell, without the variables that silence TensorFlow.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    assert result.stdout.startswith("(2, ")
    assert result.stderr == ""


def test_proposals_travel_with_their_images(mixed, tmp_path):
    """Of every image its whole area, which stays the whole image, however it is resized and flipped."""
    source = FolderSource(read_coco(**mixed.write()), mask_grid=4)
    whole = [np.array([[0, 0, width, height]], np.float32) for height, width in source.sizes.tolist()]
    rows = [
        (int(image_id), ImageProposals(box, np.array([image_id], np.float32)))
        for image_id, box in zip(source.ids, whole, strict=True)
    ]
    write_proposals(tmp_path / "p.npz", reversed(rows))
    proposals = read_proposals(tmp_path / "p.npz").of_images(source.ids, source.sizes, source=source.name)
    options = {"batch_size": 2, "seed": 0, "masks": True, "keypoints": True}
    batch = next(training_batches(source, config(), **options, proposals=proposals, num_proposals=3))
    assert batch.proposals.boxes.shape == (2, 3, 4) and batch.proposals.boxes.dtype == np.float32
    assert batch.proposals.valid.tolist() == [[True, False, False]] * 2
    np.testing.assert_array_equal(batch.proposals.boxes[:, 0, 2:], batch.image_sizes[:, ::-1])
    np.testing.assert_array_equal(batch.proposals.scores[:, 0], batch.ids)
    plain = next(training_batches(source, config(), **options))
    assert plain.proposals is None
    assert_equal(batch.replace(proposals=None), plain)
