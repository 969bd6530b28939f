import dataclasses
import json
import os
import re
import shutil
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.core import naming

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data import records as module
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.data.records import RecordSource, prepare_records, records_name
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.data.tensorflow import tfds
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.runs.categories import Categories

GRID = 12


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A dataset with images of many kinds, and its records."""
    from tests.data.conftest import CocoFolder

    root = tmp_path_factory.mktemp("odd")
    folder = CocoFolder(root)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add_object(folder.add_image(name="plain.jpg"))
    rotated = Image.new("RGB", (20, 10), (9, 90, 200))
    rotated = folder.add_image(rotated, name="turned.jpg", size=(20, 10), exif=exif)
    folder.add_object(rotated, bbox=[1, 2, 3, 9], segmentation=[[1, 2, 4, 2, 4, 11]])
    gray = folder.add_image(Image.new("L", (20, 10), 9))
    folder.add_object(gray, segmentation=[], category_id=3, keypoints=[])
    several = folder.add_image(Image.new("CMYK", (20, 10), (0, 50, 90, 10)), name="a b é.jpg")
    crowd = {"size": [10, 20], "counts": [150, 50]}
    folder.add_object(several, iscrowd=1, segmentation=crowd, keypoints=[0] * 9)
    folder.add_object(several, bbox=[0, 0, 4, 4])
    folder.add_image(Image.new("RGBA", (5, 7)), name=os.fsdecode(b"caf\xe9.png"))  # without objects
    dataset = read_coco(**folder.write())
    return dataset, prepare_records(dataset, root / "records", mask_grid=GRID, num_workers=1)[0]


def test_records_equal_the_folder(odd):
    dataset, folder = odd
    records, files = RecordSource(folder, mask_grid=GRID), FolderSource(dataset, mask_grid=GRID)
    assert records.categories == files.categories and records.has_masks == files.has_masks
    for name in ("ids", "sizes", "learnable", "num_objects"):
        np.testing.assert_array_equal(getattr(records, name), getattr(files, name), err_msg=name)
    for index in range(len(files.ids)):
        found, wanted = records.read(index), files.read(index)
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
        for field in dataclasses.fields(wanted.objects):
            value, expected = (getattr(objects, field.name) for objects in (found.objects, wanted.objects))
            assert value.dtype == expected.dtype
            np.testing.assert_array_equal(value, expected, err_msg=field.name)
        for source, image in ((records, found), (files, wanted)):
            assert_same_objects(source.objects(index), image.objects)


def test_ground_truth_from_records_equals_that_from_the_folder(odd):
    dataset, folder = odd
    records, files = RecordSource(folder), FolderSource(dataset, mask_grid=0)
    truth = ground_truth(files).dataset
    assert len(truth["annotations"]) == 5 and any(item["iscrowd"] for item in truth["annotations"])
    assert repr(ground_truth(records).dataset) == repr(truth)


def test_the_first_images_of_records(odd):
    dataset, folder = odd
    records = RecordSource(folder, count=2)
    images = dataclasses.replace(dataset, images=dataset.images[:2])
    files = FolderSource(images, mask_grid=0)
    for name in ("ids", "sizes", "learnable", "num_objects"):
        np.testing.assert_array_equal(getattr(records, name), getattr(files, name), err_msg=name)
    assert repr(ground_truth(records).dataset) == repr(ground_truth(files).dataset)


def assert_same_objects(found, wanted):
    for field in dataclasses.fields(wanted):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name), field.name)


def test_batches_from_records_equal_those_from_the_folder(odd):
    dataset, folder = odd
    config = DataConfig(
        train_short_sides=(24, 32), long_side=64, canvases=((32, 64), (64, 32)), max_objects=3,
        mask_grid=GRID, keep_empty=True, colour_jitter=True,
    )  # fmt: skip
    settings = {"batch_size": 2, "seed": 3, "masks": True, "keypoints": True}
    found, wanted = (
        training_batches(source, config, **settings)
        for source in (RecordSource(folder, mask_grid=GRID), FolderSource(dataset, mask_grid=GRID))
    )
    for _ in range(6):
        one, other = next(found), next(wanted)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.ids, other.ids)
        for name in ("boxes", "labels", "crowd", "valid", "masks", "mask_boxes", "keypoints"):
            np.testing.assert_array_equal(getattr(one.gt, name), getattr(other.gt, name), err_msg=name)


def test_shards_are_in_order_and_may_be_empty(folder, monkeypatch):
    for number in range(6):
        folder.add_object(folder.add_image(name=f"{number}.jpg"))
    for number in (2, 3):
        (folder.root / "images" / f"{number}.jpg").write_bytes(b"no image")
    dataset = read_coco(**folder.write())
    monkeypatch.setattr(module, "_SHARD_BYTES", 1)  # one shard per image
    path, kept = prepare_records(
        dataset, folder.root / "records", mask_grid=GRID, num_workers=2, skip_bad=True
    )
    assert len(list(path.glob("*array_record*"))) == 6
    assert [image.id for image in kept.images] == [1, 2, 5, 6]
    source = RecordSource(path, mask_grid=GRID)
    assert source.ids.tolist() == [1, 2, 5, 6]
    for index, image in enumerate(kept.images):
        assert source.file(index) == image.path.read_bytes()


def test_nearly_black_images_are_one_warning(folder):
    for _ in range(5):
        folder.add_image(np.full((10, 20, 3), 15, np.uint8))
    folder.add_object(folder.add_image())
    path, kept = prepare_records(
        read_coco(**folder.write()), folder.root / "records", mask_grid=GRID, num_workers=1
    )
    assert len(kept.images) == len(RecordSource(path).ids) == 6
    (warning,) = kept.findings
    assert warning.warning and warning.image_id is None
    images = folder.root / "images"
    assert warning.rule.startswith(
        "5 images are nearly black (no value reaches 16 of 255): "
        f"{images}/1.png, {images}/2.png, {images}/3.png and 2 more; "
    )


def test_tfds_opens_records(odd):
    dataset, folder = odd
    assert folder.parts[-3:] == ("coco_objects", "instances", "1.0.0")
    assert not (folder / "left_out.txt").exists()
    source = tfds.data_source("coco_objects/instances", data_dir=folder.parents[2], split="images")
    first = source[0]
    assert first["image"].shape == (10, 20, 3) and first["boxes"].tolist() == [[2, 1, 10, 5]]
    # As docs/data.md says, TFDS ignores the EXIF orientation.
    assert source[1]["image"].shape == (10, 20, 3) and source[1]["size"].tolist() == [20, 10]
    files = tfds.data_source(
        "coco_objects/instances", data_dir=folder.parents[2], split="images",
        decoders={"image": tfds.decode.SkipDecoding()},
    )  # fmt: skip
    assert files[1]["image"] == dataset.images[1].path.read_bytes()
    assert json.loads((folder / "categories.json").read_text())["names"] == list(dataset.categories.names)


def copied(folder, tmp_path):
    """A copy of records, to be changed."""
    copy = tmp_path / "coco_objects" / "instances" / "1.0.0"
    shutil.copytree(folder, copy)
    return copy


def test_no_code_is_run_that_records_name(odd, tmp_path, monkeypatch):
    """TFDS imports the module of every class in features.json; ours are read by our own fields."""
    dataset, folder = odd
    copy = copied(folder, tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('code of a stranger has run')")
    monkeypatch.syspath_prepend(tmp_path)
    path = copy / "features.json"
    features = path.read_text()
    path.write_text(
        re.sub(r'"(python_?[cC]lass_?[nN]ame|type)": "[^"]*"', r'"\1": "stranger.Feature"', features)
    )
    assert path.read_text().count("stranger.Feature") > 5
    with pytest.raises(SystemExit, match="code of a stranger"):
        tfds.builder_from_directory(str(copy))
    source = RecordSource(copy, mask_grid=GRID)
    np.testing.assert_array_equal(source.read(1).pixels, FolderSource(dataset, mask_grid=0).read(1).pixels)
    assert "stranger" not in sys.modules
    path.unlink()
    assert RecordSource(copy).read(0).objects.boxes.tolist() == [[2, 1, 10, 5]]


def test_records_never_become_larger_than_their_objects(odd, tmp_path):
    _, folder = odd
    files = RecordSource(folder)._records
    bomb = zlib.compress(bytes(10_000_000))
    with pytest.raises(ValueError, match="the masks of 2 objects must have 36 bytes"):
        files._masks(bomb, count=2)
    assert files._masks(zlib.compress(bytes(range(36))), count=2)[1].tolist() == list(range(18, 36))
    copy = copied(folder, tmp_path)
    with np.load(folder / "index.npz") as index:
        np.savez_compressed(copy / "index.npz", **index)
    with pytest.raises(ValueError, match=r"not random-access records .*: index\.npz is compressed"):
        RecordSource(copy)
    with np.load(folder / "index.npz") as index:
        np.savez(copy / "index.npz", **{**index, "sizes": np.full_like(index["sizes"], 10**9)})
    with pytest.raises(
        ValueError, match=r"image 1 \(plain\.jpg\): the file has 10x20 pixels.*1000000000x1000"
    ):
        RecordSource(copy).read(0)


def test_labels_without_a_category_are_an_error(odd):
    _, folder = odd
    source = RecordSource(folder)
    source.categories = Categories(ids=(), names=())
    with pytest.raises(ValueError, match=r"image 1: labels must be from 1 to 0, .* got \[2\]"):
        source.objects(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.ones(3, np.int32)}, "the fields have different numbers of objects: .*'labels': 3"),
        (
            {"boxes": np.array([[5, 1, 2, 5]], np.float32)},
            r"boxes must be x1 y1 x2 y2, got \[\[5\.0, 1\.0, 2\.",
        ),
        ({"boxes": np.array([[1, 1, np.inf, 5]], np.float32)}, "boxes must be finite"),
        ({"areas": np.array([np.nan], np.float32)}, "areas must be finite"),
    ],
)
def test_objects_that_nothing_can_have_are_an_error_that_names_the_image(odd, changes, message, monkeypatch):
    _, folder = odd
    source = RecordSource(folder)
    features = source._records._features
    read = features.deserialize_example_np
    monkeypatch.setattr(
        features, "deserialize_example_np", lambda *args, **options: read(*args, **options) | changes
    )
    for use in (source.read, source.objects):
        with pytest.raises(ValueError, match=f"{folder}: image 1: damaged record: {message}"):
            use(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_grid": 10**9}, "a mask_grid of 1000000000; it must be from 1 to 4096"),
        ({"mask_grid": -12}, "a mask_grid of -12; it must be from 1 to 4096"),
        ({"ids": np.zeros(5, np.int64)}, "ids that repeat"),
        ({"ids": np.array(list("abcde"))}, r"ids of type <U1 and shape \(5,\)"),
        ({"sizes": np.ones((5, 3), np.int32)}, r"sizes of type int32 and shape \(5, 3\)"),
        ({"num_objects": np.ones(4, np.int32)}, "4 num_objects for 5 ids"),
        ({"learnable": np.ones(5, np.int32)}, r"learnable of type int32 and shape \(5,\)"),
    ],
)
def test_an_index_that_nothing_can_have_is_an_error(odd, tmp_path, changes, message):
    copy = copied(odd[1], tmp_path)
    with np.load(copy / "index.npz") as index:
        content = {**index, **changes}
    np.savez(copy / "index.npz", **content)
    with pytest.raises(ValueError, match=rf"not random-access records .*: index\.npz has {message}"):
        RecordSource(copy)


def test_a_file_name_need_not_be_utf8(odd):
    _, folder = odd
    source = tfds.data_source("coco_objects/instances", data_dir=folder.parents[2], split="images")
    assert source[4]["name"] == b"caf\xe9.png" and source[3]["name"] == "a b é.jpg".encode()
    records = RecordSource(folder, mask_grid=GRID)
    assert records.read(4).name == rf"{folder}: image 5 (caf\xe9.png)"
    assert records.read(3).name == f"{folder}: image 4 (a b é.jpg)"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/instances_train2017.json", "instances_train2017"),
        ("my photos (1).v2.json", "my_photos_1_.v2"),
        (os.fsdecode(b"caf\xe9.json"), "caf_"),
        ("żółw-1+2.json", "żółw-1+2"),
    ],
)
def test_record_names_are_accepted_by_tfds(file, name):
    assert records_name(file) == records_name("other.json", name) == name
    assert naming.parse_builder_name_kwargs(f"coco_objects/{name}")[1] == {"config": name}


@pytest.mark.parametrize("name", ["my photos", "a/b", "a:1.0.0", "..", "x\n"])
def test_names_that_tfds_rejects_are_an_error(name):
    with pytest.raises(ValueError, match=r"--name of the records must consist of letters.*, got "):
        records_name("train.json", name)


def test_existing_records_are_not_overwritten(odd):
    dataset, folder = odd
    with pytest.raises(ValueError, match=r"instances/1\.0\.0: already exists; delete it"):
        prepare_records(dataset, folder.parents[2], mask_grid=GRID, num_workers=1)


def test_an_unreadable_image_leaves_no_records(folder):
    folder.add_object(folder.add_image(name="good.png"))
    folder.add_object(folder.add_image(name="cut.png"))
    cut = folder.root / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:300])
    dataset = read_coco(**folder.write())
    with pytest.raises(ValueError, match=r"cut\.png +2 +-  cannot be read"):
        prepare_records(dataset, folder.root / "records", mask_grid=GRID, num_workers=1)
    assert not list((folder.root / "records").rglob("*.array_record*"))


def test_tfrecords_are_for_tfds_load(odd, tmp_path):
    dataset, _ = odd
    folder, _ = prepare_records(dataset, tmp_path, mask_grid=GRID, num_workers=1, file_format="tfrecord")
    loaded = tfds.load("coco_objects/instances", data_dir=tmp_path, split="images")
    boxes = next(iter(loaded.as_numpy_iterator()))["boxes"]
    assert len(loaded) == len(dataset.images) and boxes.tolist() == [[2, 1, 10, 5]]
    with pytest.raises(ValueError, match=r"not random-access records.* the file format is tfrecord"):
        RecordSource(folder, mask_grid=GRID)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("index.npz", lambda data: data[:200]),
        ("index.npz", lambda data: b""),
        ("index.npz", lambda data: b"junk"),
        ("dataset_info.json", lambda data: data.replace(b'"shardLengths"', b'"lengths"')),
        ("dataset_info.json", lambda data: re.sub(rb'"\d+"\s*\]', b'"999999999999"]', data)),
        ("categories.json", lambda data: data[: len(data) // 2]),
        ("categories.json", lambda data: b"[]"),
        ("dataset_info.json", lambda data: b"{"),
    ],
)
def test_damaged_records_are_named(odd, tmp_path, name, damage):
    _, folder = odd
    copy = copied(folder, tmp_path)
    (copy / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=r"1\.0\.0: not random-access records"):
        RecordSource(copy, mask_grid=GRID)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (None, "No such file or directory"),  # made by an older version
        (lambda data: data[: len(data) // 2], "damaged: "),
        (lambda data: b"\n".join(data.split(b"\n")[:3]), "damaged: 3 lines for 5 images"),
        (lambda data: data.replace(b'"box"', b'"bbox"'), "damaged: .*'bbox'"),
        (lambda data: data.replace(b'"area"', b'"acreage"'), "damaged: .*acreage"),
    ],
)
def test_records_without_their_annotations_are_only_for_training(odd, tmp_path, damage, reason):
    _, folder = odd
    copy = copied(folder, tmp_path)
    path = copy / "annotations.jsonl"
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    source = RecordSource(copy, mask_grid=GRID)
    assert_same_objects(source.objects(3), RecordSource(folder, mask_grid=GRID).objects(3))
    message = rf"annotations\.jsonl: {reason}.*; to evaluate .* remake them with mrcnn-jax prepare"
    with pytest.raises(ValueError, match=message):
        source.annotations(0)


def test_folders_without_matching_records_are_an_error(odd, tmp_path):
    _, folder = odd
    with pytest.raises(ValueError, match=r"nowhere: not random-access records"):
        RecordSource(tmp_path / "nowhere", mask_grid=GRID)
    with pytest.raises(
        ValueError, match=r"its masks have 12 cells per axis; set data\.mask_grid, now 28, to 12"
    ):
        RecordSource(folder, mask_grid=28)
    RecordSource(folder)  # any number of cells
