import json

import numpy as np
import pytest

from mrcnn_jax.tool_formats.found import Found
from tests.tool_formats.examples import BOX, NAMES, OBJECTS, SIZE, SIZES, entries, write_example


def test_images_and_objects(tmp_path):
    results, images = write_example(tmp_path)
    found = Found(results, images, score_threshold=0.5)
    first, second = found
    assert (len(found), found.given, found.left_out) == (2, 5, {"objects of lower scores": 1})
    assert found.categories.names == tuple(NAMES.values())
    assert (first.id, first.name, first.file, first.size) == (7, "a.png", images / "a.png", SIZE)
    assert (second.id, second.name, second.size) == (3, "sub/b b.jpg", SIZES["sub/b b.jpg"])
    whole, ring, _, box = first.objects
    assert (whole.label, whole.name, whole.score) == (2, "dog", 0.9)
    assert whole.box == (3, 3, 27, 27) and (whole.mask.top, whole.mask.left) == (3, 3)
    pixels = np.zeros(SIZE, bool)
    ring.mask.write(pixels)
    np.testing.assert_array_equal(pixels, OBJECTS["ring"][3])
    assert box.mask is None and box.box == (60, 5, 72.5, 15.25)


def test_what_annotations_are_for(tmp_path):
    """COCO's own results have neither file names nor names of categories."""
    results, images = write_example(tmp_path)
    plain = [{k: v for k, v in entry.items() if k not in ("file_name", "category")} for entry in entries()]
    results.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"the category ids \[1, 18\] have no name .*--annotations"):
        Found(results, images)
    for entry in plain:
        entry["category"] = NAMES[entry["category_id"]]
    results.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"\[0\]: has no file_name; --annotations=FILE.json says"):
        Found(results, images)
    annotations = tmp_path / "coco.json"
    content = {
        "images": [{"id": 3, "file_name": "sub/b b.jpg"}, {"id": 7, "file_name": "a.png"}],
        "categories": [{"id": k, "name": v} for k, v in {**NAMES, 5: "cat"}.items()],
    }
    annotations.write_text(json.dumps(content))
    found = Found(results, images, annotations=annotations)
    assert [(image.id, len(image.objects)) for image in found] == [(3, 1), (7, 5)]
    assert found.categories.ids == (1, 5, 18)
    results.write_text("[]")
    assert [len(image.objects) for image in Found(results, images, annotations=annotations)] == [0, 0]
    for wrong, message in (
        ({"image_id": 8, "category_id": 1}, r"image ids \[8\] are not in"),
        ({"image_id": 7, "category_id": 2}, r"category ids \[2\] are not in"),
    ):
        results.write_text(json.dumps([wrong]))
        with pytest.raises(ValueError, match=message):
            Found(results, images, annotations=annotations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "../secret.png"}, r"\[0\]: file_name must be a path inside the image folder"),
        ({"file_name": "/etc/passwd"}, r"\[0\]: file_name must be a path inside the image folder"),
        ({"file_name": "c.png"}, r"1 of 2 images are not in .*photos:\n'c.png': there is no such file"),
        ({"file_name": 5}, r"\[0\]: file_name must be a string, got 5"),
        ({"score": "high"}, r"\[0\]: score must be a number, got 'high'"),
        ({"score": float("nan")}, r"\[0\]: score must be a number, got nan"),
        ({"bbox": [1, 2, 3]}, r"\[0\]: bbox must be \[x, y, width, height\]"),
        ({"segmentation": {"size": [60, 80], "counts": "1"}}, r"\[0\]: segmentation: RLE counts must"),
        ({"segmentation": {"size": [2, 3], "counts": [6]}}, r"\[0\]: segmentation must be the size of the"),
        ({"segmentation": [[1, 1, 5, 1, 5, 5]]}, r"\[0\]: segmentation must be an RLE"),
        ({"category": "a\nb"}, "categories: names must not have control characters"),
        ({"category": NAMES[1]}, "is called"),
    ],
)
def test_wrong_entries_are_named(tmp_path, change, message):
    results, images = write_example(tmp_path)
    wrong = entries()
    if "category" in change:
        wrong = [entry | (change if entry["category_id"] == 18 else {}) for entry in wrong]
        message = "several category ids are called" if change["category"] == NAMES[1] else message
    else:
        wrong[0] |= change
    results.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=message):
        list(Found(results, images))


def test_what_is_left_out(tmp_path):
    results, images = write_example(tmp_path)
    changed = entries()
    changed[0]["category"] = changed[2]["category"] = changed[4]["category"] = changed[5]["category"] = "N/A"
    changed[1]["bbox"] = [500, 0, 5, 5]
    changed[3]["keypoints"] = [1, 2, 1]
    results.write_text(json.dumps(changed))
    found = Found(results, images)
    objects = [item for image in found for item in image.objects]
    assert [item.box for item in objects] == [(60, 5, 72.5, 15.25)]
    assert found.left_out == {
        "objects of unused categories": 4,
        "objects outside of their image": 1,
    }
    assert objects[0].keypoints == {"keypoint_1": (1, 2)}
    list(found := Found(results, images, keypoints=False))
    assert found.left_out["sets of keypoints: --nokeypoints"] == 1


def test_a_box_that_is_missing_is_that_of_the_mask(tmp_path):
    results, images = write_example(tmp_path)
    changed = entries()
    del changed[0]["bbox"]
    results.write_text(json.dumps(changed))
    assert next(iter(Found(results, images))).objects[0].box == (3, 3, 27, 27)
    assert changed[3]["bbox"] == BOX


def test_two_ids_of_one_file(tmp_path):
    results, images = write_example(tmp_path)
    changed = entries()
    changed[-1]["file_name"] = "a.png"
    results.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"several image ids have the same file: .*a.png; --annotations"):
        Found(results, images)
