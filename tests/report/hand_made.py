"""A run and its results made by hand: three images, three categories, six detections."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.description import write_run

HEIGHT, WIDTH = 40, 60
BALL, FIGURE, NEVER = "<b>ball</b>", 'fig"ure & co', "never seen"
IDS = {BALL: 3, FIGURE: 7, NEVER: 9}
FILES = ("1 & <i>.png", "2.png", "3.png")


def mask_of(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """The mask that fills a box."""
    bitmap = np.zeros((HEIGHT, WIDTH), bool)
    bitmap[int(y) : int(y + height), int(x) : int(x + width)] = True
    return dict(Rle.from_bitmap(bitmap).compressed())


def polygon_of(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def points_of(x: float, y: float, width: float, height: float) -> list[float]:
    """Two keypoints, at corners of a box."""
    return [x, y, 2, x + width, y + height, 2]


# Image, category and box; the last is a crowd.
OBJECTS = (
    (1, BALL, (2, 2, 12, 12)),
    (1, FIGURE, (30, 4, 20, 30)),
    (3, FIGURE, (5, 5, 20, 24)),
    (3, BALL, (40, 20, 18, 18)),
)
# The first two are correct. Then follow: of another category than the object, in an image without objects,
# inaccurate, and one inside the crowd, which does not count.
FOUND = (
    (1, BALL, (2, 2, 12, 12), 0.9),
    (1, FIGURE, (30, 4, 20, 30), 0.8),
    (1, BALL, (30, 4, 20, 30), 0.7),
    (2, FIGURE, (10, 10, 10, 10), 0.95),
    (3, FIGURE, (5, 5, 20, 9), 0.6),
    (3, BALL, (42, 22, 8, 8), 0.5),
)


def entries(*, masks: bool = True, keypoints: bool = True) -> list[dict[str, Any]]:
    """The detections as a COCO results list."""
    found = []
    for image, category, box, score in FOUND:
        entry = {"image_id": image, "category_id": IDS[category], "bbox": list(box), "score": score}
        if masks:
            entry["segmentation"] = mask_of(*box)
        if keypoints and category == FIGURE:
            entry["keypoints"] = points_of(*box)
        found.append(entry)
    return found


def annotations(*, masks: bool = True, keypoints: bool = True) -> dict[str, Any]:
    """The data set as COCO has it."""
    categories: list[dict[str, Any]] = [{"id": number, "name": name} for name, number in IDS.items()]
    objects = []
    for number, (image, category, box) in enumerate(OBJECTS, start=1):
        entry: dict[str, Any] = {
            "id": number,
            "image_id": image,
            "category_id": IDS[category],
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": int(number == len(OBJECTS)),
        }
        if masks:
            is_crowd = number == len(OBJECTS)
            entry["segmentation"] = mask_of(*box) if is_crowd else polygon_of(*box)
        if keypoints and category == FIGURE:
            entry |= {"keypoints": points_of(*box), "num_keypoints": 2}
        objects.append(entry)
    if keypoints:
        categories[1] |= {"keypoints": ["head", "foot"], "skeleton": [[1, 2]], "sigmas": [0.1, 0.1]}
    images = [
        {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for number, name in enumerate(FILES, start=1)
    ]
    return {"images": images, "categories": categories, "annotations": objects}


def make_run(
    folder: Path, *, masks: bool = True, keypoints: bool = True, sections: Any = None, **model: Any
) -> Config:
    """Writes the images, the annotations, ``found.json`` and a run without weights, ``folder/run``.

    ``sections`` replace those of the annotations.
    """
    (folder / "images").mkdir(parents=True)
    for name in FILES:
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(folder / "images" / name)
    content = annotations(masks=masks, keypoints=keypoints) | (sections or {})
    (folder / "val.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(entries(masks=masks, keypoints=keypoints)))
    config = Config(
        model=ModelConfig(mask=masks, keypoint=keypoints, **model),
        data=DataConfig(root=str(folder), val_images="images", val_annotations="val.json"),
    )
    write_run(folder / "run", config, open_validation_source(config).categories)
    return config
