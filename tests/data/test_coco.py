import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.data.categories import COCO_KEYPOINTS, COCO_SIGMAS, read_categories_file
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.rle import Rle

COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"


def test_reads_images_objects_and_categories(folder):
    image = folder.add_image()
    empty = folder.add_image()
    folder.add_object(image)
    rle = {"size": [10, 20], "counts": [150, 50]}
    folder.add_object(image, category_id=3, keypoints=[], iscrowd=1, segmentation=rle)
    dataset = read_coco(**folder.write())

    categories = dataset.categories
    assert categories.ids == (3, 7) and categories.names == ("car", "dog")  # labels by ascending id
    assert categories.keypoint_labels == (2,)
    assert categories.keypoint_names == ("nose", "left_paw", "right_paw")
    assert categories.skeleton == ((0, 1), (0, 2)) and categories.flip_pairs == ((1, 2),)
    assert categories.sigmas == ()

    first, second = dataset.images
    assert (first.id, first.height, first.width) == (image, 10, 20)
    assert first.path == folder.root / "images" / "1.png" and first.path.is_file()
    assert second.id == empty and second.annotations == ()
    dog, cars = first.annotations
    assert (dog.label, dog.box, dog.crowd) == (2, (2.0, 1.0, 10.0, 5.0), False)
    assert [polygon.tolist() for polygon in dog.segmentation] == [[[2, 1], [10, 1], [2, 5]]]
    assert dog.keypoints.tolist() == [[3, 2, 2], [6, 1, 1], [5, 5, 0]]
    assert (cars.label, cars.crowd, cars.keypoints) == (1, True, None)
    assert isinstance(cars.segmentation, Rle) and cars.segmentation.decode()[:, 15:].all()


def test_polygons_that_enclose_no_area_are_dropped(folder):
    image = folder.add_image()
    triangle = [2, 1, 10, 1, 2, 5]
    for polygons in ([[1, 1], triangle, [1, 1, 2, 2]], [[1, 1], [1, 1, 2, 2]], []):
        folder.add_object(image, segmentation=polygons)
    some, none, empty = read_coco(**folder.write()).images[0].annotations
    assert [polygon.tolist() for polygon in some.segmentation] == [[[2, 1], [10, 1], [2, 5]]]
    assert none.segmentation is None and empty.segmentation is None


def test_keypoints_of_a_second_file_are_joined_by_annotation_id(folder):
    image = folder.add_image()
    for _ in range(2):
        folder.add_object(image)
    second = dict(folder.content["annotations"][1], keypoints=[1, 1, 2] * 3)
    points = dict(folder.content, annotations=[second])
    (folder.root / "points.json").write_text(json.dumps(points))
    for entry in folder.content["annotations"]:
        del entry["keypoints"]
    folder.content["categories"] = [{"id": 3, "name": "car"}, {"id": 7, "name": "dog"}]
    arguments = folder.write()
    dataset = read_coco(**arguments, keypoints="points.json")
    assert dataset.categories.keypoint_labels == (2,)
    first, second = dataset.images[0].annotations
    assert first.keypoints is None and second.keypoints.tolist() == [[1, 1, 2]] * 3

    points["annotations"][0]["id"] = 99
    (folder.root / "points.json").write_text(json.dumps(points))
    with pytest.raises(ValueError, match=r"points\.json +1 +99  has no annotation of the same id"):
        read_coco(**arguments, keypoints="points.json")


def test_sigmas_come_from_the_file_or_are_cocos(folder):
    folder.add_image()
    folder.content["categories"] = [{"id": 1, "name": "a", "keypoints": ["x", "y"], "sigmas": [0.1, 0.2]}]
    assert read_coco(**folder.write()).categories.sigmas == (0.1, 0.2)
    folder.content["categories"] = [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS)}]
    assert read_coco(**folder.write()).categories.sigmas == COCO_SIGMAS


def test_categories_of_a_file_without_images(folder):
    path = folder.root / "categories.json"
    path.write_text(json.dumps({"categories": folder.content["categories"]}))
    categories = read_categories_file(path)
    assert (categories.ids, categories.names, categories.keypoint_labels) == ((3, 7), ("car", "dog"), (2,))
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"categories\.json: must hold one JSON object with 'categories'"):
        read_categories_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 8}, r"\.json +1 +1  category_id 8 is not among the categories \[3, 7\]"),
        ({"image_id": 5}, r"\.json +5 +1  image_id 5 is not among the images"),
        ({"image_id": "1"}, r"\.json +- +1  image_id must be an integer, got '1'"),
        ({"bbox": [1, 2, 3]}, r" 1 +1  bbox must be \[x, y, width, height\].*got \[1, 2, 3\]"),
        ({"bbox": [1, 2, float("nan"), 3]}, r" 1 +1  bbox must be"),
        ({"bbox": [1, 2, 10**400, 3]}, r" 1 +1  bbox must be"),
        ({"bbox": [1, 2, float("inf"), 3]}, r" 1 +1  bbox must be"),
        ({"bbox": [1, 2, -3, 3]}, r" 1 +1  bbox must be"),
        ({"bbox": None}, r" 1 +1  bbox must be"),
        ({"area": -1}, r" 1 +1  area must be"),
        ({"iscrowd": 2}, r" 1 +1  iscrowd must be 0 or 1, got 2"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, r" 1 +1  segmentation must be polygons"),
        (
            {"segmentation": [2, 1, 10, 1, 2, 5]},
            r"a list of polygons \[\[x1, .*got one flat list of 6 numbers",
        ),
        (
            {"segmentation": [[2, 1], [10, 1], [2, 5]]},
            r"a list of polygons .*, got a list of 3 points \[x, y\]",
        ),
        (
            {"segmentation": [[[2, 1], [10, 1], [2, 5], [2, 4]], [[2, 1]]]},
            r"a list of polygons .*, got polygons as lists of points \[x, y\], the first of 4 points",
        ),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, r" 1 +1  segmentation must be polygons"),
        ({"segmentation": {"size": [10, 20], "counts": [201]}}, r" 1 +1  segmentation: RLE counts"),
        (
            {"segmentation": {"size": [20, 10], "counts": [200]}},
            r"the size of the image, \[10, 20\], got \[20, 10\]",
        ),
        ({"segmentation": {"counts": [200]}}, r"needs a size \[height, width\], got None"),
        ({"segmentation": {"size": [10, 20], "counts": 5}}, "an RLE needs counts"),
        ({"keypoints": [1, 2, 2]}, r" 1 +1  keypoints must be \[x, y, visibility\] for each of the 3"),
        ({"keypoints": [1, 2, 3] * 3}, r" 1 +1  keypoints must be of visibility 0, 1 or 2"),
        ({"category_id": 3}, r" 1 +1  has keypoints, but its category 'car' defines none"),
        ({"id": 2**70}, r"annotations\[0\]: id must be an integer"),
    ],
)
def test_bad_annotations_are_named(folder, changes, message):
    folder.add_object(folder.add_image(), **changes)
    with pytest.raises(ValueError, match=message):
        read_coco(**folder.write())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("file_name", "../secret.png", r" 1 +-  file_name must be a path inside .*got '\.\./secret"),
        ("file_name", "/etc/passwd", r" 1 +-  file_name must be a path inside the image folder"),
        ("file_name", 5, r" 1 +-  file_name must be a string, got 5"),
        ("height", 0, r" 1 +-  height must be an integer >= 1, got 0"),
        ("width", 20.5, r" 1 +-  width must be an integer >= 1, got 20\.5"),
        ("id", True, r"images\[0\]: id must be an integer, got True"),
    ],
)
def test_bad_images_are_named(folder, key, value, message):
    folder.add_image()
    folder.content["images"][0][key] = value
    with pytest.raises(ValueError, match=message):
        read_coco(**folder.write())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": [0.1]}, "category 7: sigmas must be 3 positive numbers"),
        ({"keypoints": ["a", "a"]}, "category 7: keypoints must be a list of distinct names"),
        ({"id": 3}, "duplicate category id 3"),
        ({"name": ""}, "category 7: name must be a string"),
    ],
)
def test_bad_categories_are_named(folder, changes, message):
    dog, car = folder.content["categories"]
    folder.content["categories"] = [car, {**dog, **changes}]
    with pytest.raises(ValueError, match=message):
        read_coco(**folder.write())


def test_duplicate_ids(folder):
    image = folder.add_image()
    folder.add_object(image)
    folder.content["annotations"] *= 2
    with pytest.raises(ValueError, match=r"instances\.json +1 +1  annotations\[1\]: duplicate id$"):
        read_coco(**folder.write())


def test_many_duplicate_ids_are_one_error(folder):
    image = folder.add_image()
    folder.add_object(image)
    folder.content["annotations"] *= 12
    with pytest.raises(ValueError) as error:
        read_coco(**folder.write())
    _, _, row = str(error.value).splitlines()
    assert row.endswith(
        "  ids repeat: 11 annotations have the id of an earlier one, such as annotations[1] with id 1, which "
        "another annotation has"
    )
    assert len(read_coco(**folder.write(), skip_bad=True).images[0].annotations) == 1


def test_ids_that_restart_in_every_image_are_renumbered(folder):
    for _ in range(2):
        image = folder.add_image()
        folder.add_object(image, id=1)
        folder.add_object(image, id=2, category_id=3, keypoints=[])
    dataset = read_coco(**folder.write())
    assert [[(item.id, item.label) for item in image.annotations] for image in dataset.images] == [
        [(1, 2), (2, 1)], [(3, 2), (4, 1)],
    ]  # fmt: skip
    (finding,) = dataset.findings
    assert finding.warning and finding.rule == (
        "ids restart in every image (annotations[2] with id 1, which another annotation has); they are "
        "renumbered from 1, in file order"
    )

    # A second file could mean either of them.
    (folder.root / "points.json").write_text(json.dumps(folder.content))
    with pytest.raises(ValueError) as error:
        read_coco(**folder.write(), keypoints="points.json")
    rows = str(error.value).splitlines()[2:]
    assert len(rows) == 2 and all("ids restart in every image: 2 annotations have" in row for row in rows)


def test_whole_floats_and_null_are_taken(folder):
    image = folder.add_image()
    folder.add_object(image, id=1.0, image_id=1.0, category_id=7.0, iscrowd=None)
    folder.content["images"][0].update(id=1.0, width=20.0, height=10.0)
    folder.content["categories"] = [
        {**category, "id": float(category["id"])} for category in folder.content["categories"]
    ]
    dataset = read_coco(**folder.write())
    (read,) = dataset.images
    (item,) = read.annotations
    assert dataset.findings == () and dataset.categories.ids == (3, 7)
    assert (read.id, read.height, read.width, item.id, item.label, item.crowd) == (1, 10, 20, 1, 2, False)
    assert {type(value) for value in (read.id, read.width, item.id, *dataset.categories.ids)} == {int}


def test_crowds_can_be_read_as_objects(folder):
    rle = {"size": [10, 20], "counts": [21, 4, 6, 4, 165]}
    folder.add_object(folder.add_image(), iscrowd=1, bbox=[2, 1, 2, 4], segmentation=rle)
    (crowd,), (item,) = (
        read_coco(**folder.write(), crowds_are_objects=flag).images[0].annotations for flag in (False, True)
    )
    assert (crowd.crowd, item.crowd) == (True, False)
    assert item.segmentation.decode()[1:5, 2:4].all() and item.segmentation.decode().sum() == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"instances\.json: the file is empty"),
        ('{"images": [\n  oops]}', r"instances\.json: not valid JSON at line 2, column 3"),
        ("[1]", "must hold one JSON object"),
        ('{"images": [], "annotations": []}', "the section 'categories' is missing"),
        ('{"images": [], "annotations": [], "categories": []}', "the section 'categories' is empty"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "the section 'annotations' is missing"),
        (
            '{"images": [3], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            r"images\[0\] must be an object, got 3",
        ),
        ('{"a": "\xff"}'.encode("latin-1"), "not valid JSON: .*utf-8"),
    ],
)
def test_bad_files(folder, text, message):
    arguments = folder.write()
    (folder.root / "instances.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_coco(**arguments)


def test_missing_folders_and_files(folder):
    for number in range(12):
        folder.add_image(write=number == 3)
    arguments = folder.write()
    with pytest.raises(ValueError, match=r"instances\.json: 11 errors") as error:
        read_coco(**arguments)
    rows = str(error.value).splitlines()[2:]
    assert len(rows) == 11 and all(row.endswith("-  there is no such file") for row in rows)
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        read_coco(**arguments | {"images": "nowhere"})
    with pytest.raises(ValueError, match="absent: there is no such folder"):
        read_coco(**arguments | {"root": folder.root / "absent"})
    with pytest.raises(ValueError, match=r"absent\.json: cannot be read: No such file"):
        read_coco(**arguments | {"annotations": "absent.json"})


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs ../shared/data/coco_mini")
def test_reads_the_real_coco():
    dataset = read_coco(
        COCO_MINI,
        images="val2017",
        annotations="annotations/instances_val2017.json",
        keypoints="annotations/person_keypoints_val2017.json",
    )
    objects = [item for image in dataset.images for item in image.annotations]
    assert (len(dataset.images), len(objects), len(dataset.categories)) == (79, 624, 80)
    assert sum(item.keypoints is not None for item in objects) == 68  # of 118 persons; the others' are all 0
    assert dataset.findings == ()
    assert dataset.categories.sigmas == COCO_SIGMAS and len(dataset.categories.flip_pairs) == 8
    assert np.unique([item.label for item in objects]).max() <= 80


def test_a_file_of_another_tool_is_told_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "labelme.json").write_text('{"version": "5.0", "shapes": [], "imagePath": "a.jpg"}')
    (tmp_path / "voc.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    for name, kind in (("labelme.json", "labelme"), ("voc.xml", "voc")):
        with pytest.raises(
            ValueError, match=rf"{name}: .*\nit looks like .*mrcnn-jax to_coco .*--format={kind}"
        ):
            read_coco(tmp_path, images="", annotations=name)
