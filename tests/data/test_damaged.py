"""Damaged and unusual datasets: what is reported, what is dropped, and what just works."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax import images
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.findings import as_table, errors
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.records import RecordSource, prepare_records
from tests.data.examples import GRID, check_examples, config_of

NAN, INF = float("nan"), float("inf")


def file_of(folder, image):
    return folder.root / "images" / folder.content["images"][image - 1]["file_name"]


# Each function damages a dataset of two images, ids 1 and 2, with one object each. The lists below pair it
# with the expected finding.


def damage_missing(folder):
    file_of(folder, 1).unlink()


def damage_truncated(folder):
    path = file_of(folder, 1)
    path.write_bytes(path.read_bytes()[:-200])


def damage_empty(folder):
    file_of(folder, 1).write_bytes(b"")


def damage_text(folder):
    file_of(folder, 1).write_text("<html>404</html>")


def damage_folder(folder):
    file_of(folder, 1).unlink()
    file_of(folder, 1).mkdir()


def damage_size(folder):
    folder.content["images"][0]["height"] = 11


def damage_exif_size(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(file_of(folder, 1), exif=exif)


def damage_image(**changes):
    return lambda folder: folder.content["images"][0].update(changes)


def damage_object(**changes):
    return lambda folder: folder.content["annotations"][0].update(changes)


def damage_copy(section, **changes):
    return lambda folder: folder.content[section].append({**folder.content[section][0], **changes})


def damage_append(section, entry):
    return lambda folder: folder.content[section].append(entry)


FILES = [
    (damage_missing, "there is no such file"),
    (damage_truncated, "cannot be read: image file is truncated"),
    (damage_empty, "cannot be read: the file is empty"),
    (damage_text, "cannot be read: the file seems to be HTML, such as the error page of a failed download"),
    (damage_folder, "cannot be read: Is a directory"),
    (damage_size, "the file has 10x20 pixels (height x width, upright), the annotations say 11x20"),
    (damage_exif_size, "the file has 20x10 pixels (height x width, upright), the annotations say 10x20"),
]
IMAGES = [
    (damage_image(height=0), "height must be an integer >= 1, got 0"),
    (damage_image(width=2**40), "width must be at most 2147483647"),
    (damage_image(width=NAN), "width must be an integer >= 1, got nan"),
    (damage_image(file_name="../1.png"), "file_name must be a path inside the image folder"),
    (damage_image(file_name="/etc/passwd"), "file_name must be a path inside the image folder"),
    (damage_image(file_name="."), "file_name must be a path inside the image folder"),
    (damage_image(file_name=None), "file_name must be a string, got None"),
    (damage_image(file_name="a\0/b.png"), "there is no such file"),
    (damage_image(file_name="a" * 300 + "/b.png"), "there is no such file"),
    (damage_copy("images", file_name="2.png"), "images[2]: duplicate id"),
]
OBJECTS = [
    (damage_object(bbox=[8, 2, -3, 4]), "bbox must be [x, y, width, height]"),
    (damage_object(bbox=[8, 2, 3, -4]), "bbox must be [x, y, width, height]"),
    (damage_object(bbox=[8, 2, NAN, 4]), "bbox must be [x, y, width, height]"),
    (damage_object(bbox=[INF, 2, 3, 4]), "bbox must be [x, y, width, height]"),
    (damage_object(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "segmentation must be polygons"),
    (damage_object(segmentation=[[1, 2, 3, 4, 5, NAN]]), "segmentation must be polygons"),
    (damage_object(segmentation="x"), "segmentation must be a list of polygons or an RLE"),
    (
        damage_object(segmentation={"size": [9, 20], "counts": [180]}),
        "segmentation must be the size of the image, ",
    ),
    (damage_object(segmentation={"size": [10, 20], "counts": "#!"}), "segmentation: RLE counts are not"),
    (damage_object(segmentation={"size": [10, 20], "counts": [9]}), "segmentation: RLE counts must"),
    (damage_object(category_id=5), "category_id 5 is not among the categories [3, 7]"),
    (damage_object(category_id=[7]), "category_id must be an integer, got [7]"),
    (damage_object(keypoints=[1, 2, 2]), "keypoints must be [x, y, visibility] for each of the 3"),
    (damage_object(keypoints=[1, 2, 3] * 3), "keypoints must be of visibility 0, 1 or 2"),
    (damage_object(iscrowd=2), "iscrowd must be 0 or 1, got 2"),
    (damage_object(iscrowd="no"), "iscrowd must be 0 or 1, got 'no'"),
    (damage_object(area=-4), "area must be a number of square pixels, at least 0, got -4"),
]
WARNINGS = [
    (damage_object(bbox=[30, 2, 3, 4]), "bbox [30, 2, 3, 4] has no area inside the image (10 x 20)"),
    (damage_object(bbox=[-5, 2, 4, 4]), "bbox [-5, 2, 4, 4] has no area inside the image (10 x 20)"),
    (damage_object(bbox=[3, 2, 0, 4]), "bbox [3, 2, 0, 4] has no area inside the image (10 x 20)"),
    (damage_object(segmentation=[[1, 2, 3, 4]]), "segmentation has no polygon with at least three points"),
]


@pytest.fixture
def two(folder):
    for _ in range(2):
        folder.add_object(folder.add_image())
    return folder


def check_error(folder, finding):
    """Checks that opening the folder for training fails with exactly this finding."""
    with pytest.raises(ValueError, match=r"instances\.json: 1 error in") as error:
        open_data_source(config_of(folder))
    rows = str(error.value).splitlines()[2:]
    assert rows == as_table([finding]).splitlines()[1:]


@pytest.mark.parametrize(("damage", "rule"), FILES + IMAGES)
def test_damaged_images(two, damage, rule):
    damage(two)
    config = config_of(two, skip_bad=True)
    source = open_data_source(config)
    assert source.ids.tolist() == [2] and check_examples(source, config) == 1
    (found,) = source.findings
    assert rule in found.rule and (found.image_id, found.annotation_id) == (1, None)
    names = ("instances.json", Path(two.content["images"][0]["file_name"] or "").name)
    assert found.file.endswith(names)
    check_error(two, found)


@pytest.mark.parametrize(("damage", "rule"), OBJECTS)
def test_damaged_annotations(two, damage, rule):
    damage(two)
    config = config_of(two, skip_bad=True)
    source = open_data_source(config)
    assert source.num_objects.tolist() == [0, 1] and check_examples(source, config) == 2
    (found,) = source.findings
    assert rule in found.rule and (found.image_id, found.annotation_id) == (1, 1)
    check_error(two, found)


@pytest.mark.parametrize(("damage", "rule"), WARNINGS)
def test_oddities_of_official_coco_are_warnings(two, damage, rule):
    damage(two)
    config = config_of(two)
    source = open_data_source(config)
    assert check_examples(source, config) == 2
    (found,) = source.findings
    assert rule in found.rule and found.warning and (found.image_id, found.annotation_id) == (1, 1)
    has_box = "bbox" not in rule
    assert source.num_objects.tolist() == [has_box, 1]
    assert not source.objects(0).masks.any()


@pytest.mark.parametrize("name", ["1.png", "./1.png"])
def test_two_images_sharing_a_file_are_a_warning(two, name):
    two.content["images"][1]["file_name"] = name
    config = config_of(two)
    source = open_data_source(config)
    assert source.num_objects.tolist() == [1, 1] and check_examples(source, config) == 2
    (found,) = source.findings
    assert found.rule == f"file_name {name!r} is also used by image 1; both are kept"
    assert found.warning and (found.image_id, found.annotation_id) == (2, None)


@pytest.mark.parametrize(
    ("damage", "place", "rule", "objects"),
    [
        (damage_object(image_id=9), (9, 1), "image_id 9 is not among the images", [0, 1]),
        (damage_object(image_id="1"), (None, 1), "image_id must be an integer, got '1'", [0, 1]),
        (damage_copy("images"), (1, None), "images[2]: duplicate id", [1, 1]),
        (damage_copy("annotations"), (1, 1), "annotations[2]: duplicate id", [1, 1]),
        (damage_append("images", 3), (None, None), "images[2] must be an object, got 3", [1, 1]),
        (damage_append("annotations", {}), (None, None), "annotations[2]: id must be an integer", [1, 1]),
        (damage_append("images", {"id": 2**70}), (None, None), "images[2]: id must be an integer", [1, 1]),
    ],
)
def test_damaged_ids(two, damage, place, rule, objects):
    damage(two)
    config = config_of(two, skip_bad=True)
    source = open_data_source(config)
    assert source.num_objects.tolist() == objects and check_examples(source, config) == 2
    (found,) = source.findings
    assert rule in found.rule and (found.image_id, found.annotation_id) == place
    check_error(two, found)


def save(picture, **options):
    return lambda path: picture.save(path, **options)


EXIF_ROTATED = Image.Exif()
EXIF_ROTATED[0x0112] = 6


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("gray.jpg", save(Image.new("L", (20, 10), 90))),
        ("gray_alpha.png", save(Image.new("LA", (20, 10), (90, 0)))),
        ("bits.png", save(Image.new("1", (20, 10), 1))),
        ("rgba.png", save(Image.new("RGBA", (20, 10), (9, 90, 200, 0)))),
        ("palette.gif", save(Image.new("L", (20, 10), 90).convert("P"))),
        ("palette.png", save(Image.new("L", (20, 10), 90).convert("P"), transparency=0)),
        ("16bit.png", save(Image.fromarray(np.full((10, 20), 40_000, np.uint16)))),
        ("cmyk.jpg", save(Image.new("CMYK", (20, 10), (0, 50, 90, 10)))),
        ("turned.jpg", save(Image.new("RGB", (10, 20), "red"), exif=EXIF_ROTATED)),
        ("progressive.jpg", save(Image.new("RGB", (20, 10), (9, 90, 200)), progressive=True)),
        ("png_called.jpg", save(Image.new("RGB", (20, 10), "red"), format="PNG")),
        ("a b 'c\".png", save(Image.new("RGB", (20, 10), "red"))),
        ("żółw 猫 \N{GRINNING FACE}.png", save(Image.new("RGB", (20, 10), "red"))),
        ("deep/er/a.png", save(Image.new("RGB", (20, 10), "red"))),
        ("..png", save(Image.new("RGB", (20, 10), "red"), format="PNG")),
    ],
)
def test_unusual_images_work(folder, name, write):
    folder.add_object(folder.add_image(name=name, write=False))
    path = folder.root / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    config = config_of(folder)
    source = open_data_source(config)
    assert source.findings == () and source.num_objects.tolist() == [1]
    assert check_examples(source, config) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": [-0.4, -3, 30, 7.5], "segmentation": [[0, -3, 29, 0, 3, 4.5]]},  # clipped
        {"segmentation": [[2, 1, 10, 5, 10, 1, 2, 5]]},  # crosses itself: even-odd
        {"segmentation": [[1, 1], [2, 1, 10, 1, 2, 5], [1, 1, 2, 2]]},  # a point, a triangle, a line
        {"segmentation": [[-50, -50, 90, -50, 90, 90]], "bbox": [0, 0, 20, 10]},
        {"segmentation": []},
        {"segmentation": None, "keypoints": None, "area": None},
        {"segmentation": {"size": [10, 20], "counts": [50, 100, 50]}, "bbox": [5, 0, 10, 10]},
        {"keypoints": [0] * 9},
        {"iscrowd": True},
        {"bbox": [2.5, 1.5, 1e9, 1e9], "segmentation": [[2.5, 1.5, 20, 1.5, 20, 10]]},
        {"iscrowd": None},
    ],
)
def test_unusual_annotations_work(folder, changes):
    folder.add_object(folder.add_image(), **changes)
    config = config_of(folder)
    source = open_data_source(config)
    assert source.findings == () and source.num_objects.tolist() == [1]
    assert check_examples(source, config) == 1


def test_gaps_between_category_ids_work(two):
    two.content["categories"] = [{"id": 900, "name": "far"}, *two.content["categories"]]
    source = open_data_source(config_of(two))
    assert source.categories.ids == (3, 7, 900) and source.objects(0).labels.tolist() == [2]


def test_no_annotations_at_all_work_with_keep_empty(two):
    two.content["annotations"] = []
    config = config_of(two)
    source = open_data_source(config)
    assert check_examples(source, config) == 2
    config.data.keep_empty = False
    with pytest.raises(ValueError, match="none of its 2 images has an object to train on"):
        check_examples(source, config)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_unusable_files_are_always_errors(two, skip_bad):
    config = config_of(two, skip_bad=skip_bad)
    path = two.root / "instances.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"instances\.json: not valid JSON at line 1, column \d+"):
        open_data_source(config)
    two.content["categories"] = [*two.content["categories"], {"id": 3, "name": "again"}]
    with pytest.raises(ValueError, match=r"instances\.json: duplicate category id 3"):
        open_data_source(config_of(two, skip_bad=skip_bad))


def test_symlinks_out_of_the_image_folder_are_followed(two, tmp_path):
    elsewhere = tmp_path / "elsewhere.png"
    file_of(two, 1).rename(elsewhere)
    file_of(two, 1).symlink_to(elsewhere)
    assert open_data_source(config_of(two)).findings == ()


def test_nothing_is_read_outside_the_image_folder(two, monkeypatch):
    (two.root / "outside.png").write_bytes(file_of(two, 1).read_bytes())
    two.content["images"][0]["file_name"] = "../outside.png"
    read, read_file = [], images.read_file
    monkeypatch.setattr(images, "read_file", lambda path: read.append(Path(path).name) or read_file(path))
    assert len(open_data_source(config_of(two, skip_bad=True)).findings) == 1
    assert read == ["2.png"]


def damage_much(folder):
    """Causes seven errors and a warning; image 5 stays good."""
    for _ in range(3):
        folder.add_object(folder.add_image())
    damage_truncated(folder)
    folder.content["images"][1]["width"] = -1
    folder.content["annotations"][1]["iscrowd"] = 3  # on the image that is dropped
    folder.content["annotations"][2].update(bbox=[1, 2, NAN, 4], area="big", category_id=1)
    folder.content["annotations"][3]["bbox"] = [1, 1, 0, 0]
    file_of(folder, 3).unlink()


PLACES = [(1, None), (2, None), (2, 2), (3, None), (3, 3), (3, 3), (3, 3)]


def test_all_findings_are_reported_in_one_error(two):
    damage_much(two)
    with pytest.raises(ValueError, match=r"instances\.json: 7 errors .*; --config\.data\.skip_bad") as error:
        open_data_source(config_of(two))
    assert len(str(error.value).splitlines()) == 2 + 8
    source = open_data_source(config_of(two, skip_bad=True))
    assert source.ids.tolist() == [4, 5] and source.num_objects.tolist() == [0, 1]
    found = errors(source.findings)
    assert sorted(((x.image_id, x.annotation_id) for x in found), key=str) == sorted(PLACES, key=str)
    assert as_table(source.findings) == "\n".join(str(error.value).splitlines()[1:])
    assert "warning: bbox [1, 1, 0, 0]" in as_table(source.findings).splitlines()[-1]


def test_records_can_leave_out_damaged_entries(two):
    damage_much(two)
    dataset = read_coco(**two.write(), skip_bad=True)
    settings = {"mask_grid": GRID, "num_workers": 1}
    with pytest.raises(ValueError, match=r"instances\.json: 7 errors .*; --skip_bad makes records") as error:
        prepare_records(dataset, two.root / "records", **settings)
    assert len(str(error.value).splitlines()) == 2 + 8
    assert not list((two.root / "records").rglob("*.array_record*"))
    folder, held = prepare_records(dataset, two.root / "records", skip_bad=True, **settings)
    assert [image.id for image in held.images] == [4, 5] and len(held.findings) == 8
    assert (folder / "left_out.txt").read_text() == as_table(errors(held.findings)) + "\n"
    config = config_of(two)
    source = RecordSource(folder, mask_grid=GRID)
    assert source.ids.tolist() == [4, 5] and source.num_objects.tolist() == [0, 1]
    assert [source.read(index).name[-7:] for index in range(2)] == ["(4.png)", "(5.png)"]
    assert check_examples(source, config) == 2


def test_records_without_any_image_are_an_error(folder):
    folder.add_image(write=False)
    dataset = read_coco(**folder.write(), skip_bad=True)
    with pytest.raises(
        ValueError, match=r"instances\.json: there is no image to make a record from"
    ) as error:
        prepare_records(dataset, folder.root / "records", mask_grid=GRID, num_workers=1, skip_bad=True)
    assert str(error.value).endswith(f"; 1 error, left out of the data\n{as_table(dataset.findings)}")


def test_damaged_keypoint_files(two):
    points = {**two.content, "annotations": [dict(entry) for entry in two.content["annotations"]]}
    for entry in two.content["annotations"]:
        del entry["keypoints"]
    points["annotations"][0]["keypoints"] = [1]
    points["annotations"][1]["image_id"] = 1
    points["annotations"].append({"id": "x"})
    (two.root / "points.json").write_text(json.dumps(points))
    dataset = read_coco(**two.write(), keypoints="points.json", skip_bad=True)
    path = str(two.root / "points.json")
    assert {(x.file, x.image_id, x.annotation_id) for x in dataset.findings} == {
        (path, 1, 1), (path, 1, 2), (path, None, None),
    }  # fmt: skip
    first, second = dataset.images
    assert first.annotations == () and second.annotations[0].keypoints is None
