import json

import pytest

from mrcnn_jax.data.categories import flip_pairs, read_categories, read_categories_file
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.runs.categories import load_categories, save_categories

DOG = {"id": 1, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
CAT = {"id": 2, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}


def read(entries, rule="strict"):
    """The categories and the rules of the warnings."""
    findings = []
    categories = read_categories(
        entries, "a.json", keypoint_entries=entries, keypoint_where="a.json", keypoint_rule=rule,
        findings=findings,
    )  # fmt: skip
    assert all(finding.warning and finding.file == "a.json" for finding in findings)
    return categories, [finding.rule for finding in findings]


def test_a_category_without_a_skeleton_takes_that_of_the_others():
    for cat in (CAT, {**CAT, "skeleton": None}, {**CAT, "skeleton": []}):
        categories, warnings = read([DOG, cat])
        assert categories.keypoint_labels == (1, 2) and categories.skeleton == ((0, 1),) and warnings == []


@pytest.mark.parametrize("rule", ["strict", "lenient"])
@pytest.mark.parametrize(
    ("skeleton", "warning"),
    [
        ([[0, 1]], "category 2: skeleton must be pairs of keypoint numbers from 1 to 2, got [0, 1]"),
        ([[1, 3]], "category 2: skeleton must be pairs of keypoint numbers from 1 to 2, got [1, 3]"),
        ([[1, 2, 2]], "category 2: skeleton must be pairs of keypoint numbers from 1 to 2, got [1, 2, 2]"),
        ([["nose", "tail"]], "category 2: skeleton must be pairs of keypoint numbers from 1 to 2, got "),
        ("x", "category 2: skeleton must be a list of pairs, got 'x'"),
        ([[2, 1]], "categories [1, 2] differ in their skeleton, which is not drawn"),
    ],
)
def test_a_bad_skeleton_is_dropped_with_a_warning(skeleton, warning, rule):
    categories, (found,) = read([DOG, {**CAT, "skeleton": skeleton}], rule)
    assert found.startswith(warning) and found.endswith("not drawn")
    assert categories.skeleton == () and categories.keypoint_names == ("nose", "tail")


@pytest.mark.parametrize(
    ("cat", "message"),
    [
        ({**CAT, "keypoints": ["a", "b", "c"], "skeleton": []}, "categories [1, 2] differ in keypoints"),
        ({**CAT, "keypoints": ["p", "p"]}, "category 2: keypoints must be a list of distinct names"),
        ({**CAT, "keypoints": "nose"}, "category 2: keypoints must be a list of names"),
        ({**CAT, "sigmas": [0.1]}, "category 2: sigmas must be 2 positive numbers"),
    ],
)
def test_bad_keypoints_are_an_error_only_if_they_are_needed(cat, message, tmp_path):
    with pytest.raises(ValueError) as error:
        read([DOG, cat])
    assert str(error.value).startswith(f"a.json: {message}")
    categories, (warning,) = read([DOG, cat], "lenient")
    assert warning.startswith(message) and warning.endswith("; keypoints are not read")
    assert categories.names == ("dog", "cat") and categories.keypoint_names == categories.skeleton == ()
    assert read([DOG, cat], "skip") == (categories, [])

    path = tmp_path / "a.json"
    path.write_text(json.dumps({"categories": [DOG, cat]}))
    assert read_categories_file(path, keypoint_rule="skip") == categories
    with pytest.raises(ValueError, match=r"a\.json: categor"):
        read_categories_file(path)


def test_unpaired_surrogates_are_replaced(tmp_path):
    entries = json.loads('[{"id": 1, "name": "bolt \\ud83d"}, {"id": 2, "name": "\\ud83d\\ude00"}]')
    categories, (warning,) = read(entries)
    assert categories.names == ("bolt \N{REPLACEMENT CHARACTER}", "\N{GRINNING FACE}")
    assert warning == "category 1: unpaired surrogates in the name 'bolt \\ud83d' became U+FFFD"
    save_categories(tmp_path / "categories.json", categories)
    assert load_categories(tmp_path / "categories.json") == categories
    assert " ".join(categories.names).encode()


def test_keypoints_of_zeros_are_none(folder):
    image = folder.add_image()
    folder.add_object(image, keypoints=[0] * 9)
    folder.add_object(image, category_id=3, keypoints=[0] * 9)  # whose category names none
    folder.add_object(image, keypoints=[0] * 3)
    assert [item.keypoints for item in read_coco(**folder.write()).images[0].annotations] == [None] * 3


def test_bad_keypoints_of_an_object(folder):
    image = folder.add_image()
    folder.add_object(image, keypoints=[1, 1, 2])
    folder.add_object(image, category_id=3)  # whose category names none
    with pytest.raises(ValueError, match=r"instances\.json: 2 errors"):
        read_coco(**folder.write())

    dataset = read_coco(**folder.write(), keypoint_rule="lenient")
    assert [item.keypoints for item in dataset.images[0].annotations] == [None, None]
    assert [(finding.annotation_id, finding.warning) for finding in dataset.findings] == [
        (1, True),
        (2, True),
    ]
    assert dataset.findings[1].rule == (
        "has keypoints, but its category 'car' defines none; its keypoints are left out"
    )

    dataset = read_coco(**folder.write(), keypoint_rule="skip")
    assert dataset.findings == () and dataset.categories.keypoint_names == ()
    assert [item.keypoints for item in dataset.images[0].annotations] == [None, None]


def test_a_second_file_is_not_read_if_keypoints_are_not(folder):
    folder.add_object(folder.add_image())
    assert len(read_coco(**folder.write(), keypoints="absent.json", keypoint_rule="skip").images) == 1


def test_flip_pairs():
    names = ("head", "left_hand", "right_hand", "foot left", "foot right", "cleft", "cright", "left_ear")
    assert flip_pairs(names) == ((1, 2), (3, 4))
