"""LVIS's annotation files, read as they are."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.federated import Federated
from mrcnn_jax.data.folders import find_layout
from mrcnn_jax.data.image_list import read_image_list
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.records import RecordSource, prepare_records
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.inference.files import read_image_ids
from mrcnn_jax.runs.categories import Categories

URL = "http://images.cocodataset.org/{}2017/{:012}.jpg"
CATEGORIES = [
    {"id": 1110, "name": "thing", "synset": "thing.n.01", "frequency": "r", "image_count": 1},
    {"id": 3, "name": "air_conditioner", "synset": "a.n.01", "frequency": "f", "image_count": 200},
    {"id": 5, "name": "cup", "synset": "cup.n.01", "frequency": "c", "image_count": 20},
]


def lvis(**changes):
    """Image 391895 of train2017 with two objects of a category, and image 7 of val2017 without any."""
    sides = {"height": 10, "width": 20}
    images = [
        {"id": 391895, "coco_url": URL.format("train", 391895), **sides,
         "neg_category_ids": [5, 3], "not_exhaustive_category_ids": [1110]},
        {"id": 7, "coco_url": URL.format("val", 7), **sides,
         "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ]  # fmt: skip
    thing = {"image_id": 391895, "category_id": 1110, "bbox": [2, 1, 8, 4], "area": 15.5,
             "segmentation": [[2, 1, 10, 1, 2, 5]]}  # fmt: skip
    annotations = [thing | {"id": 12}, thing | {"id": 13}]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}
    return content | changes


@pytest.fixture
def save(tmp_path):
    """Writes a content, and images by their names; returns what ``read_coco`` takes."""

    def write(content, *names):
        for name in names or ("train2017/000000391895.jpg", "val2017/000000000007.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (20, 10), (90, 9, 9)).save(tmp_path / name)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / "lvis_v1_train.json").write_text(json.dumps(content))
        return {"root": tmp_path, "images": ".", "annotations": "annotations/lvis_v1_train.json"}

    return write


def test_by_hand(save, tmp_path):
    dataset = read_coco(**save(lvis()))
    assert [image.file_name for image in dataset.images] == [
        "train2017/000000391895.jpg",
        "val2017/000000000007.jpg",
    ]
    assert dataset.images[0].path == tmp_path / "train2017/000000391895.jpg"
    assert dataset.categories.names == ("air_conditioner", "cup", "thing")
    source = FolderSource(dataset, mask_grid=8)
    assert source.federated == Federated(("f", "c", "r"), ((1, 2), ()), ((3,), ()))
    assert source.image_labels.tolist() == [[0, 3]]
    assert [item.area for item in source.annotations(0)] == [15.5, 15.5]
    assert source.findings == ()


def test_coco_has_none_of_it(save):
    content = lvis()
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
        image["file_name"] = image["coco_url"].rpartition("/")[2]  # COCO's entries have both
    names = [image["file_name"] for image in content["images"]]
    dataset = read_coco(**save(content, *names))
    assert dataset.frequencies is None and FolderSource(dataset, mask_grid=0).federated is None
    assert [image.file_name for image in dataset.images] == names


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("000000391895.jpg", "000000391895.jpg"),  # one folder of all images
        ("COCO_train2014_000000391895.jpg", "COCO_train2014_000000391895.jpg"),  # COCO of 2014
    ],
)
def test_other_places_of_the_images(save, named, expected):
    content = lvis()
    del content["images"][1]
    content["images"][0]["file_name"] = "COCO_train2014_000000391895.jpg"  # as v0.5 has it
    (image,) = read_coco(**save(content, named)).images
    assert image.file_name == expected
    save(content)
    (image,) = read_coco(**save(content)).images
    assert image.file_name == "train2017/000000391895.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neg_category_ids": [4]}, "neg_category_ids must be ids of categories, got [4]"),
        ({"neg_category_ids": 3}, "neg_category_ids must be ids of categories, got 3"),
        ({"not_exhaustive_category_ids": ["a"]}, "not_exhaustive_category_ids must be ids of categories"),
        ({"coco_url": "http://x/../a.jpg"}, "file_name must be a path inside the image folder"),
        ({"coco_url": None}, "file_name must be a string, got None"),
        ({"coco_url": "//"}, "file_name must be a string, got None"),
        ({"coco_url": URL.format("train", 8)}, "there is no such file"),
    ],
)
def test_errors_of_an_image(save, change, message):
    content = lvis()
    content["images"][0] |= change
    arguments = save(content)
    with pytest.raises(ValueError, match=r"lvis_v1_train\.json") as error:
        read_coco(**arguments)
    assert message in str(error.value)
    assert len(read_coco(**arguments, skip_bad=True).images) == 1


def test_errors_of_categories(save):
    categories = [CATEGORIES[0] | {"frequency": "often"}, *CATEGORIES[1:]]
    with pytest.raises(ValueError, match="category 1110: frequency must be 'r', 'c' or 'f', got 'often'"):
        read_coco(**save(lvis(categories=categories)))
    categories = [{"id": 1110, "name": "thing"}, *CATEGORIES[1:]]
    assert read_coco(**save(lvis(categories=categories))).frequencies == ("f", "c", "")


def test_records_have_it_too(save, tmp_path):
    dataset = read_coco(**save(lvis()))
    folder, _ = prepare_records(dataset, tmp_path / "records", mask_grid=8, num_workers=1)
    files, records = FolderSource(dataset, mask_grid=8), RecordSource(folder)
    assert records.federated == files.federated
    np.testing.assert_array_equal(records.image_labels, files.image_labels)
    assert RecordSource(folder, count=1).federated == files.federated.first(1)
    truth = ground_truth(files).dataset
    assert truth["images"][0]["neg_category_ids"] == [3, 5] and truth["categories"][0]["frequency"] == "f"
    assert repr(ground_truth(records).dataset) == repr(truth)
    path = folder / "federated.json"
    written = json.loads(path.read_text())
    for change in ({"negative": [[1]]}, {"negative": [[4], []]}, {"frequencies": ["r", "c", 1]}, {"x": 1}):
        path.write_text(json.dumps(written | change))
        with pytest.raises(ValueError, match=r"not random-access records .*federated\.json: "):
            RecordSource(folder)


def test_labels_of_a_run(save):
    """Whose labels are the ids, some of them unused."""
    source = FolderSource(read_coco(**save(lvis())), mask_grid=0)
    run = Categories(ids=(1, 3, 5, 1110), names=("N/A", "air_conditioner", "cup", "thing"))
    aligned = AlignedSource(source, run)
    assert aligned.federated == Federated(("", "f", "c", "r"), ((2, 3), ()), ((4,), ()))
    assert aligned.image_labels.tolist() == [[0, 4]]


def test_a_folder_with_lvis_is_recognised(save, tmp_path):
    save(lvis())
    content = (tmp_path / "annotations/lvis_v1_train.json").read_text()
    (tmp_path / "annotations/lvis_v1_val.json").write_text(content)
    assert find_layout(tmp_path) == {
        "train_images": ".",
        "train_annotations": "annotations/lvis_v1_train.json",
        "val_images": ".",
        "val_annotations": "annotations/lvis_v1_val.json",
    }


def test_lists_of_images(save, tmp_path):
    path = tmp_path / save(lvis())["annotations"]
    listed = read_image_list(path, tmp_path, sizes=True)
    assert listed.images[1] == tmp_path / "val2017/000000000007.jpg"
    assert read_image_ids(path, listed.images[::-1]) == [7, 391895]
    assert read_image_ids(path, [tmp_path / "flat" / "000000000007.jpg"]) == [7]
