from itertools import pairwise

import pytest

from mrcnn_jax.data.importers.convert import Options, convert

LETTERS = "abcdefghijklm"

SEG = "0 0.1 0.1 0.5 0.1 0.1 0.5\n"  # 2 1, 10 1, 2 5 in an image of 20 x 10
BOX = "1 0.25 0.5 0.2 0.4\n"  # centre 5 5, 4 x 4


def test_a_dataset_of_ultralytics(tmp_path, save, converted):
    for name in ("train/a", "train/deep/b", "train/c", "val/d"):
        save(f"data/images/{name}.jpg")
    save(
        "data/data.yaml",
        "path: ../datasets/data\ntrain: images/train\nval: images/val\nnames:\n  0: dog\n  1: cat\n",
    )
    save("data/labels/train/a.txt", SEG + BOX + "\n" + BOX)
    save("data/labels/train/deep/b.txt", "")
    save("data/labels/val/d.txt", BOX)
    builder, content, dataset = converted(tmp_path / "data", split="train")
    assert [item["file_name"] for item in content["images"]] == [
        "images/train/a.jpg", "images/train/c.jpg", "images/train/deep/b.jpg",
    ]  # fmt: skip
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    polygon, box = content["annotations"]
    assert (polygon["segmentation"], polygon["area"]) == ([[2, 1, 10, 1, 2, 5]], 16)
    assert (polygon["category_id"], polygon["bbox"]) == (1, [2, 1, 8, 4])
    assert (box["category_id"], box["bbox"], box["area"], box["segmentation"]) == (2, [3, 3, 4, 4], 16, [])
    assert builder.left_out == {
        "label files that do not exist: their images are kept, without objects": 1,
        "lines that repeat another of the same file": 1,
    }
    assert [len(item.annotations) for item in dataset.images] == [2, 0, 0]
    _, content, _ = converted(tmp_path / "data" / "data.yaml", split="val")
    assert [item["file_name"] for item in content["images"]] == ["images/val/d.jpg"]
    with pytest.raises(ValueError, match="has the splits train, val; choose one, as --split=train"):
        converted(tmp_path / "data")
    with pytest.raises(ValueError, match=r"--split=test: the splits in data.yaml are train, val"):
        converted(tmp_path / "data", split="test")


def test_roboflows_paths_and_categories_to_keep(tmp_path, save, converted):
    save("data/train/images/a.jpg")
    save("data/train/labels/a.txt", SEG + BOX)
    save("data/data.yaml", "train: ../train/images\nnc: 2\nnames: ['dog', 'cat']\n")
    builder, content, _ = converted(tmp_path / "data", categories=("bird", "cat"))
    assert content["images"][0]["file_name"] == "train/images/a.jpg"
    assert content["categories"] == [{"id": 1, "name": "bird"}, {"id": 2, "name": "cat"}]
    assert [item["category_id"] for item in content["annotations"]] == [2]
    assert builder.left_out == {"objects of category 'dog': not among --categories": 1}


def test_a_yaml_of_ten_lines_does_not_fill_the_memory(tmp_path, save, converted):
    """Each line has ten times the line before: printed as a name, the last one would take a terabyte."""
    lines = ["a: &a [lol]\n", *(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise(LETTERS))]
    save("data/data.yaml", "".join(lines) + f"names: *{LETTERS[-1]}\ntrain: images\n")
    with pytest.raises(ValueError, match=r"data\.yaml: not valid YAML: must not have aliases"):
        converted(tmp_path / "data")


def test_lists_of_images_in_one_folder(tmp_path, save, converted, rules):
    """As Ultralytics' autosplit writes them: the labels of the other split have images, too."""
    for name, split in (("a", "val"), ("b", "train")):
        save(f"data/images/{name}.jpg")
        save(f"data/labels/{name}.txt", BOX)
        save(f"data/{split}.txt", f"./images/{name}.jpg\n")
    save("data/data.yaml", "train: train.txt\nval: val.txt\nnames: [dog, cat]\n")
    for name, split in (("a", "val"), ("b", "train")):
        _, content, _ = converted(tmp_path / "data", split=split)
        assert [item["file_name"] for item in content["images"]] == [f"images/{name}.jpg"]
    save("data/labels/c.txt", BOX)
    assert rules(tmp_path / "data", split="val") == ["c.txt: there is no image of this name"]


def test_classes_in_a_text_file(tmp_path, save, converted):
    save("data/images/a.jpg")
    save("data/labels/a.txt", BOX)
    save("data/classes.txt", "dog\ncat\n")
    _, content, _ = converted(tmp_path / "data")
    assert content["annotations"][0]["category_id"] == 2
    assert content["images"][0]["file_name"] == "images/a.jpg"
    # Images in another folder, and labels beside the images.
    save("photos/b.jpg")
    save("other/labels/b.txt", BOX)
    save("other/classes.txt", "dog\ncat\n")
    _, content, _ = converted(tmp_path / "other", images=str(tmp_path / "photos"))
    assert (content["images"][0]["file_name"], len(content["annotations"])) == ("b.jpg", 1)
    save("flat/c.jpg")
    save("flat/c.txt", BOX)
    save("flat/classes.txt", "dog\ncat\n")
    _, content, _ = converted(tmp_path / "flat")
    assert (content["images"][0]["file_name"], len(content["annotations"])) == ("c.jpg", 1)


def test_keypoints(tmp_path, save, converted):
    save("data/images/a.jpg")
    save("data/labels/a.txt", "0 0.25 0.5 0.2 0.4 0.2 0.3 2 0.3 0.4 1\n1 0.25 0.5 0.2 0.4 0 0 0 0 0 0\n")
    text = "train: images\nnames: [dog, cat]\nkpt_shape: [2, 3]\n"
    save("data/data.yaml", text + "kpt_names: {0: [nose, tail]}\n")
    builder, content, _ = converted(tmp_path / "data")
    dog, cat = content["annotations"]
    assert (dog["bbox"], dog["segmentation"]) == ([3, 3, 4, 4], [])
    assert (dog["keypoints"], dog["num_keypoints"]) == ([4, 3, 2, 6, 4, 1], 2)
    assert "keypoints" not in cat
    assert content["categories"] == [
        {"id": 1, "name": "dog", "keypoints": ["nose", "tail"]},
        {"id": 2, "name": "cat"},
    ]
    assert builder.left_out == {}
    save("data/data.yaml", text)
    assert converted(tmp_path / "data")[1]["categories"][0]["keypoints"] == ["keypoint_1", "keypoint_2"]


def test_keypoints_of_two_numbers(tmp_path, save, converted):
    save("data/images/a.jpg")
    save("data/labels/a.txt", "0 0.25 0.5 0.2 0.4 0.2 0.3 0 0\n")
    save("data/data.yaml", "train: images\nnames: [dog]\nkpt_shape: [2, 2]\n")
    _, content, _ = converted(tmp_path / "data")
    assert content["annotations"][0]["keypoints"] == [4, 3, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("line", "lines", "message"),
    [
        ("0.2 0.3 3", "", "line 1: the visibility of a keypoint must be 0, 1 or 2, got 3"),
        ("0.2 1.3 2", "", "line 1: keypoints must be shares of the image's sides, 0 to 1, got .1.3"),
        (
            "",
            "kpt_shape: [1, 4]",
            "kpt_shape must be the number of keypoints, 1 to 10000, and 2 or 3 numbers",
        ),
        ("", "kpt_shape: [.inf, 3]", "kpt_shape must be"),
        ("", "kpt_shape: 3", "kpt_shape must be"),
        ("", "kpt_shape: [1, 3]\nkpt_names: {0: [a, b]}", "kpt_names must be 1 distinct names for each"),
        ("", "kpt_shape: [2, 3]\nkpt_names: {0: [a, a]}", "kpt_names must be 2 distinct names"),
        ("", "kpt_shape: [1, 3]\nkpt_names: nose", "kpt_names must be 1 distinct names"),
    ],
)
def test_wrong_keypoints(tmp_path, save, line, lines, message):
    save("data/images/a.jpg")
    save("data/labels/a.txt", f"0 0.25 0.5 0.2 0.4 {line}\n")
    save("data/data.yaml", f"train: images\nnames: [dog]\n{lines or 'kpt_shape: [1, 3]'}\n")
    with pytest.raises(ValueError, match=message):
        raise ValueError([item.rule for item in convert(tmp_path / "data", Options()).findings])


def test_all_problems_are_listed(tmp_path, save, rules):
    save("data/images/a.jpg")
    save("data/images/b.jpg", "no image")
    lines = (
        "0 0.1 0.2 0.3", "0 0.1 0.2 0.3 0.4 0.9", "2 0.25 0.5 0.2 0.4", "0 5 5 4 4", "0 a 0.5 0.2 0.4",
        "0.5 0.25 0.5 0.2 0.4", "0 nan 0.5 0.2 0.4", "inf 0.25 0.5 0.2 0.4", "0 0.25 0.5 0 0.4",
        "0 0.1 0.1 0.2 0.2 0.3 0.3",
    )  # fmt: skip
    save("data/labels/a.txt", "\n".join(lines))
    save("data/labels/z.txt", BOX)
    save("data/classes.txt", "dog\ncat\n")
    beginnings = (
        "a.txt: line 1: a line must be a category and 4 numbers (a box) or at least 6 in pairs (a polygon)",
        "a.txt: line 2: a line must be a category",
        "a.txt: line 3: category 2 is not among the 2 names",
        "a.txt: line 4: coordinates must be shares of the image's sides, 0 to 1, got [5.0, 5.0, 4.0, 4.0]",
        "a.txt: line 5: all words must be numbers, got '0 a 0.5 0.2 0.4'",
        "a.txt: line 6: the category must be a whole number, got '0.5'",
        "a.txt: line 7: coordinates must be shares of the image's sides, 0 to 1, got [nan]",
        "a.txt: line 8: the category must be a whole number, got 'inf'",
        "a.txt: line 9: a rectangle must have an area",
        "a.txt: line 10: the 3 points of a polygon must not lie on one line",
        "b.jpg: ",
        "z.txt: there is no image of this name",
    )
    found = rules(tmp_path / "data", format="yolo")
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "names: !!python/object/apply:os.system ['true']\ntrain: a\n",
            "not valid YAML: could not determine a construct",
        ),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nnames: *b\ntrain: images\n",
            "data.yaml: not valid YAML: must not have aliases",
        ),
        ("names: [dog]\ntrain: /etc\n", "'/etc' of data.yaml is not inside this folder, or does not exist"),
        ("names: [dog]\ntrain: ../../outside\n", "'../../outside' of data.yaml is not inside this folder"),
        ("names: [dog]\ntrain: ..\n", "'..' of data.yaml is not inside this folder"),
        ("names: [dog, dog]\ntrain: images\n", "names of the categories must be distinct, and at least one"),
        ("names: 3\ntrain: images\n", "names must be a list of categories, or their names by number, got 3"),
        ("names: [dog]\ntrain: [3]\n", "train must be a string, got 3"),
        ("names: [dog]\ntrain: empty\n", "empty: there are no images"),
    ],
)
def test_an_unusable_data_yaml(tmp_path, save, rules, content, message):
    save("outside/a.jpg")
    save("data/images/a.jpg")
    (tmp_path / "data" / "empty").mkdir()
    save("data/data.yaml", content)
    with pytest.raises(ValueError, match=message):
        rules(tmp_path / "data")


def test_categories_without_names(tmp_path, save, rules):
    save("data/images/a.jpg")
    save("data/labels/a.txt", BOX)
    with pytest.raises(ValueError, match="the names of the categories are missing"):
        rules(tmp_path / "data")


def test_coordinates_may_leave_the_image_by_a_hundredth(tmp_path, save, converted, rules):
    save("data/data.yaml", "train: images\nnames: [dog, cat]\n")
    save("data/images/a.png")
    save("data/labels/a.txt", "0 -0.01 0.1 1.01 0.1 1.01 1.01 -0.01 1.01\n1 1.005 0.5 0.1 0.5\n")
    _, content, _ = converted(tmp_path / "data")
    polygon, box = content["annotations"]
    assert (polygon["bbox"], polygon["area"]) == ([0, 1, 20, 9], 180)
    assert box["bbox"] == pytest.approx([19.1, 2.5, 0.9, 5])
    save("data/labels/a.txt", "0 -0.02 0.1 1 0.1 1 1\n1 0.5 1.011 0.1 0.5\n")
    assert rules(tmp_path / "data") == [
        "a.txt: line 1: coordinates must be shares of the image's sides, 0 to 1, got [-0.02]",
        "a.txt: line 2: coordinates must be shares of the image's sides, 0 to 1, got [1.011]",
    ]


def test_an_image_whose_labels_cannot_be_read_is_left_out(tmp_path, save, kept):
    for name in ("a", "b"):
        save(f"data/images/{name}.jpg")
        save(f"data/labels/{name}.txt", BOX)
    (tmp_path / "data" / "labels" / "a.txt").write_bytes(b"\xff" + BOX.encode())
    save("data/classes.txt", "dog\ncat\n")
    assert kept(tmp_path / "data") == (["images/b.jpg"], 1)
