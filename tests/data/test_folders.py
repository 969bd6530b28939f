import json

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.folders import find_layout, with_layout


@pytest.fixture
def data(tmp_path):
    """Writes a COCO file for images, and the images, which need no content here."""

    def write(annotations, names, folder=None, *, order=("info", "images", "annotations", "categories")):
        content = {
            "info": {"images": 3, "description": 'has "images": too'},
            "images": [
                {"id": i, "file_name": name, "height": 1, "width": 1} for i, name in enumerate(names, 1)
            ],
            "annotations": [],
            "categories": [{"id": 1, "name": "dog"}],
        }
        path = tmp_path / annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({key: content[key] for key in order}))
        for name in names if folder is not None else ():
            image = tmp_path / folder / name
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()

    return write


def layout(train, train_images, val=None, val_images=None):
    fields = {"train_images": train_images, "train_annotations": train}
    return fields if val is None else fields | {"val_images": val_images, "val_annotations": val}


def test_roboflow(tmp_path, data):
    for split in ("train", "valid", "test"):
        data(
            f"{split}/_annotations.coco.json",
            ["a.jpg", "b.jpg"],
            split,
            order=("categories", "images", "annotations"),
        )
    assert find_layout(tmp_path) == layout(
        "train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"
    )


@pytest.mark.parametrize("images", ["{}2017", "images/{}2017", "{}2017/images"])
def test_coco(tmp_path, data, images):
    for split in ("train", "val"):
        # The same name in both: the split decides.
        data(f"annotations/instances_{split}2017.json", ["1.jpg"], images.format(split))
        data(f"annotations/person_keypoints_{split}2017.json", ["1.jpg"])
        data(f"annotations/captions_{split}2017.json", ["1.jpg"])
    data("annotations/image_info_test2017.json", ["2.jpg"])
    assert find_layout(tmp_path) == layout(
        "annotations/instances_train2017.json", images.format("train"),
        "annotations/instances_val2017.json", images.format("val"),
    )  # fmt: skip


def test_one_folder_for_all_splits_and_the_year_of_the_files(tmp_path, data):
    data("annotations/instances_train.json", ["1.jpg"], "images")
    data("annotations/instances_val.json", ["2.jpg"], "images")
    assert find_layout(tmp_path) == layout(
        "annotations/instances_train.json", "images", "annotations/instances_val.json", "images"
    )
    data("annotations/instances_train.json", ["1.jpg"], "train2014")
    data("annotations/instances_train.json", ["1.jpg"], "train")
    assert find_layout(tmp_path)["train_images"] == "train"


def test_label_studio(tmp_path, data):
    data("result.json", ["images/1.jpg"], ".", order=("images", "categories", "annotations", "info"))
    assert find_layout(tmp_path) == layout("result.json", ".")


def test_cvat(tmp_path, data):
    data("annotations/instances_default.json", ["1.jpg"], "images/default")
    assert find_layout(tmp_path) == layout("annotations/instances_default.json", "images/default")


def test_a_project_of_cvat_with_subsets(tmp_path, data):
    data("annotations/instances_Train.json", ["1.jpg"], "images/Train")
    data("annotations/instances_Validation.json", ["1.jpg"], "images/Validation")
    assert find_layout(tmp_path) == layout(
        "annotations/instances_Train.json", "images/Train",
        "annotations/instances_Validation.json", "images/Validation",
    )  # fmt: skip


def test_fiftyone(tmp_path, data):
    data("labels.json", ["1.jpg"], "data", order=("info", "categories", "images", "annotations"))
    assert find_layout(tmp_path) == layout("labels.json", "data")


def test_fiftyone_with_splits(tmp_path, data):
    data("train/labels.json", ["1.jpg"], "train/data")
    data("validation/labels.json", ["1.jpg"], "validation/data")
    assert find_layout(tmp_path) == layout(
        "train/labels.json", "train/data", "validation/labels.json", "validation/data"
    )


@pytest.mark.parametrize("images", [".", "images"])
def test_one_file(tmp_path, data, images):
    data("annotations.json", ["1.jpg", "2.jpg"], images)
    (tmp_path / "1.json").write_text('{"version": "5", "shapes": [], "imagePath": "1.jpg"}')
    (tmp_path / "detections.json").write_text('[{"image_id": 1, "category_id": 1, "score": 0.5}]')
    (tmp_path / "empty.json").touch()
    assert find_layout(tmp_path) == layout("annotations.json", images)


def test_the_fields_can_be_read(tmp_path, shared):
    from mrcnn_jax.data.coco import read_coco

    root = shared / "data" / "coco_mini"
    fields = find_layout(root)
    assert fields == layout(
        "annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"
    )
    dataset = read_coco(root, images=fields["val_images"], annotations=fields["val_annotations"])
    assert len(dataset.images) == 79


def test_several_that_fit(tmp_path, data):
    data("a.json", ["1.jpg"], ".")
    data("b.json", ["1.jpg"], ".")
    with pytest.raises(
        ValueError, match=r"there are 2 COCO files without a split in their names: a.json, b.json"
    ):
        find_layout(tmp_path)
    data("instances_train.json", ["1.jpg"], ".")
    assert find_layout(tmp_path) == layout("instances_train.json", ".")
    data("other/instances_train.json", ["1.jpg"], ".")
    with pytest.raises(
        ValueError, match=r"there are 2 COCO files of the train set: instances_train.json, other/"
    ):
        find_layout(tmp_path)


def test_images_in_several_folders_or_none(tmp_path, data):
    data("a.json", ["1.jpg"], "images")
    data("a.json", ["1.jpg"], "photos")
    with pytest.raises(
        ValueError, match=r"a.json: its images are in 2 folders: images, photos; set data.train_images"
    ):
        find_layout(tmp_path)
    data("a.json", ["2.jpg"])
    with pytest.raises(
        ValueError, match=r"a.json: its first images, such as '2.jpg', are in none of the folders: \., im"
    ):
        find_layout(tmp_path)
    data("a.json", ["../2.jpg"])
    with pytest.raises(
        ValueError, match=r"its first images, such as '\.\./2.jpg', are in none of the folders"
    ):
        find_layout(tmp_path)
    data("a.json", [])
    with pytest.raises(ValueError, match=r"a.json: has no images with a file_name"):
        find_layout(tmp_path)


def test_missing_images_of_both_sets_are_reported_together(tmp_path, data):
    data("annotations/instances_train.json", ["1.jpg"])
    data("annotations/instances_val.json", ["2.jpg"])
    with pytest.raises(
        ValueError, match=r"'1.jpg'.*\n.*instances_val.json: its first images, such as '2.jpg'"
    ):
        find_layout(tmp_path)


def test_no_training_set(tmp_path, data):
    with pytest.raises(ValueError, match="there is no such folder"):
        find_layout(tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"no training set in COCO's format\nCOCO files found: none\nLayouts"
    ):
        find_layout(tmp_path)
    data("test/_annotations.coco.json", ["1.jpg"], "test")
    with pytest.raises(ValueError, match=r"COCO files found: test/_annotations.coco.json\n"):
        find_layout(tmp_path)


def test_another_format(tmp_path):
    (tmp_path / "1.json").write_text('{"version": "5", "shapes": [], "imagePath": "1.jpg"}')
    with pytest.raises(
        ValueError, match="it looks like a folder of labelme annotations; convert it with: mrcnn-jax"
    ):
        find_layout(tmp_path)


def test_a_config_gets_the_layout(tmp_path, data):
    config = Config()
    config.data.train_records, config.data.val_keypoints, config.train.eval_every = "records", "k.json", 5
    data("train/_annotations.coco.json", ["a.jpg"], "train")
    found = with_layout(config, tmp_path)
    assert found.data.root == str(tmp_path) and found.data.train_images == "train"
    assert found.data.train_records == found.data.val_keypoints == ""
    assert found.train.eval_every == 0  # there is no validation set
    data("valid/_annotations.coco.json", ["b.jpg"], "valid")
    found = with_layout(config, tmp_path)
    assert found.data.val_annotations == "valid/_annotations.coco.json" and found.train.eval_every == 5
    assert config.data.train_records == "records"


def test_names_in_other_spellings(tmp_path, data):
    """As the reader of the dataset takes them: of Windows, and absolute."""
    data("annotations/instances_train.json", [r"images\a.jpg"])
    data("annotations/instances_val.json", [str(tmp_path / "val" / "b.jpg")])
    for name in ("train/images/a.jpg", "val/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert find_layout(tmp_path) == layout(
        "annotations/instances_train.json", "train", "annotations/instances_val.json", "val"
    )
