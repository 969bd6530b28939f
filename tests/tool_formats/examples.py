"""Results with every kind of object, their images, and how to compare masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_jax.data.coco_fields import pack_polygons, read_segmentation
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.rle import Rle

SIZE = 60, 80  # height and width
SIZES = {"a.png": SIZE, "sub/b b.jpg": (30, 50)}


def disc(y: float, x: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


# By name: image id, category id, score, mask (None: a box alone). No two overlap.
OBJECTS: dict[str, tuple[int, int, float, np.ndarray | None]] = {
    "whole": (7, 18, 0.9, disc(15, 15, 12)),
    "ring": (7, 1, 0.8, disc(43, 20, 16) & ~disc(41, 22, 8)),
    "two parts": (7, 18, 0.7, disc(15, 45, 10) | disc(45, 62, 13)),
    "box": (7, 1, 0.6, None),
    "weak": (7, 18, 0.3, disc(10, 70, 5)),
    "other image": (3, 18, 0.5, disc(15, 25, 12, SIZES["sub/b b.jpg"])),
}
NAMES = {1: 'per"son & <co>', 18: "dog"}
BOX = [60.0, 5.0, 12.5, 10.25]  # of "box", x y width height


def entries() -> list[dict[str, Any]]:
    """The results list."""
    found = []
    for image, category, score, mask in OBJECTS.values():
        entry: dict[str, Any] = {
            "image_id": image,
            "file_name": "a.png" if image == 7 else "sub/b b.jpg",
            "category_id": category,
            "category": NAMES[category],
            "bbox": BOX,
            "score": score,
        }
        if mask is not None:
            ys, xs = np.nonzero(mask)
            x, y = int(xs.min()), int(ys.min())
            entry["bbox"] = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
            entry["segmentation"] = Rle.from_bitmap(mask).compressed()
        found.append(entry)
    return found


def write_example(folder: Path) -> tuple[Path, Path]:
    """Writes the results and the images; returns the list and the folder of images."""
    images = folder / "photos"
    for name, (height, width) in SIZES.items():
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(images / name)
    results = folder / "detections.json"
    results.write_text(json.dumps(entries()))
    return results, images


def bitmap(segmentation: Any, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels of a COCO segmentation; None without one."""
    read = read_segmentation(pack_polygons({"segmentation": segmentation})["segmentation"], size)
    return None if read is None else pixels_of(read, 0, 0, *size)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def best_ious(found: list[tuple[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, float]:
    """For each of the objects, the IoU with the best of the masks ``found`` of its category."""
    ious = {}
    for name in names:
        _, category, _, mask = OBJECTS[name]
        assert mask is not None
        same = [pixels for label, pixels in found if label == NAMES[category] and pixels.shape == mask.shape]
        ious[name] = max((iou(pixels, mask) for pixels in same), default=0.0)
    return ious


KEYPOINTS = ("nose", "left_eye", "right_eye")
# As in results: one is left of the image by less than half a pixel, one has the score 0.
WITH_KEYPOINTS = [20.5, 30.0, 0.7, -0.25, 40.0, 3.0, 25.0, 30.0, 0.0]


def write_keypoint_example(folder: Path) -> tuple[Path, Path, Path]:
    """Results of the first image: "ring" with two of its keypoints, "box" with none, and "whole", a dog.

    Returns the list, the folder of images, and a COCO file that names the keypoints.
    """
    results, images = write_example(folder)
    whole, ring, _, box, *_ = entries()
    results.write_text(
        json.dumps([ring | {"keypoints": WITH_KEYPOINTS}, box | {"keypoints": [0] * 9}, whole])
    )
    person = {"keypoints": list(KEYPOINTS), "skeleton": [[1, 2], [1, 3]]}
    annotations = folder / "coco.json"
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": NAMES[1], **person}, {"id": 18, "name": "dog"}],
    }
    annotations.write_text(json.dumps(content))
    return results, images, annotations
