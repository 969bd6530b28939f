"""A small COCO dataset on disk, which each test changes as needed."""

import json

import numpy as np
import pytest
from PIL import Image

CATEGORIES = [
    {"id": 7, "name": "dog", "keypoints": ["nose", "left_paw", "right_paw"], "skeleton": [[1, 2], [1, 3]]},
    {"id": 3, "name": "car"},
]


def annotation(identifier, image, **changes):
    """A dog in the upper left part of a 20x10 image (width x height)."""
    entry = {
        "id": identifier,
        "image_id": image,
        "category_id": 7,
        "bbox": [2, 1, 8, 4],
        "iscrowd": 0,
        "area": 16,
        "segmentation": [[2, 1, 10, 1, 2, 5]],
        "keypoints": [3, 2, 2, 6, 1, 1, 5, 5, 0],
    }
    return {**entry, **changes}


class CocoFolder:
    """A dataset whose files are written below ``root``."""

    def __init__(self, root):
        self.root = root
        (root / "images").mkdir()
        self.content = {"images": [], "annotations": [], "categories": CATEGORIES}

    def add_image(self, pixels=None, *, name=None, size=None, write=True, **save):
        """Adds an image, by default noise with 10 rows and 20 columns, and returns its id."""
        identifier = len(self.content["images"]) + 1
        if pixels is None:
            pixels = np.random.default_rng(identifier).integers(0, 256, (10, 20, 3)).astype(np.uint8)
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        name = name or f"{identifier}.png"
        if write:
            picture.save(self.root / "images" / name, **save)
        height, width = size or (picture.height, picture.width)
        self.content["images"].append({"id": identifier, "file_name": name, "height": height, "width": width})
        return identifier

    def add_object(self, image, **changes):
        """Adds the standard annotation, with changes, and returns its id."""
        identifier = len(self.content["annotations"]) + 1
        self.content["annotations"].append(annotation(identifier, image, **changes))
        return identifier

    def write(self):
        """Writes the annotation file and returns the arguments of ``read_coco``."""
        (self.root / "instances.json").write_text(json.dumps(self.content))
        return {"root": self.root, "images": "images", "annotations": "instances.json"}


@pytest.fixture
def folder(tmp_path):
    return CocoFolder(tmp_path)
