"""What is written, read back by this project's own importers of the same formats."""

import json

import numpy as np
import pytest

from mrcnn_jax.data.importers.convert import Options, convert
from tests.tool_formats.examples import BOX, NAMES, best_ious, bitmap

MASKS = ("whole", "ring", "two parts", "other image")


def read(folder, format, **options):
    """The masks by category, and the boxes of objects without one."""
    images = None if format == "yolo" else str(folder.parents[format == "masks"] / "photos")
    builder = convert(folder, Options(format=format, images=images, **options))
    assert builder.findings == []
    return masks_of(builder.content())


def masks_of(content):
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    masks, boxes = [], []
    for entry in content["annotations"]:
        pixels = bitmap(entry["segmentation"], sizes[entry["image_id"]])
        if pixels is None:
            boxes.append((names[entry["category_id"]], entry["bbox"]))
        else:
            masks.append((names[entry["category_id"]], pixels))
    return masks, boxes


@pytest.mark.parametrize(("tolerance", "bound"), [(0.0, 1.0), (0.75, 0.94)])
@pytest.mark.parametrize("format", ["labelme", "yolo", "voc", "coco"])
def test_masks_come_back(write, format, tolerance, bound):
    folder = write(format, tolerance=tolerance)
    if format == "coco":
        masks, boxes = masks_of(json.loads((folder / "labels.json").read_text()))
    else:
        if format == "yolo":
            (folder / "images").symlink_to(folder.parent / "photos")
        masks, boxes = read(folder, format, **({"split": "train"} if format == "yolo" else {}))
    assert len(masks) == len(MASKS) and len(boxes) == 1
    assert min(best_ious(masks, MASKS).values()) >= (1.0 if format == "voc" else bound)
    ((name, box),) = boxes
    assert name == NAMES[1]
    np.testing.assert_allclose(box, [60, 5, 13, 11] if format == "voc" else BOX, atol=1e-4)


def test_png_masks_come_back(write):
    folder = write("masks", score_threshold=0)
    assert sorted(path.name for path in folder.iterdir()) == ["dog", "objects.csv", "per_son _ _co_"]
    found = []
    for category, name in (("dog", "dog"), ("per_son _ _co_", NAMES[1])):
        masks, _ = read(folder / category, "masks", category=name)
        found += masks
    assert best_ious(found, (*MASKS, "weak")) == dict.fromkeys((*MASKS, "weak"), 1.0)
    lines = (folder / "objects.csv").read_text().splitlines()
    assert lines[0] == "mask,image,category,score"
    assert lines[1] == "dog/a/1.png,a.png,dog,0.9"
    assert lines[-1] == "dog/sub/b b/1.png,sub/b b.jpg,dog,0.5" and len(lines) == 6
