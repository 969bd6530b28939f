"""Shapes whose categories only a depth channel can tell: RGB and depth of 16 bits, in one file per image.

    python -m tests.training.depth_shapes data/shapes data/depth

takes the pictures that ``mrcnn-jax shapes`` drew. Every object, whatever its shape, is "near" or "far", which
nothing in its colours depends on. ``train`` and ``val`` have .npy or, with a third argument ``.tif``, TIFF
files: RGB from 0 to 255, and millimetres. ``annotations/rgb_*.json`` name the JPEG files that these were made
of, with the same objects.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation, read_coco
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.images import read_image

MEAN, STD = 3500.0, 1500.0  # millimetres
_NEAR, _FAR = (1000, 2000), (2500, 3500)


def make_depth_shapes(shapes: Path, output: Path, suffix: str = ".npy") -> None:
    """Writes the dataset into a new folder ``output``."""
    (output / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (output / split).mkdir()
        (output / f"{split}_rgb").symlink_to((shapes / split).resolve())
        content = json.loads((shapes / f"annotations/instances_{split}.json").read_text())
        content["categories"] = [{"id": 1, "name": "near"}, {"id": 2, "name": "far"}]
        annotations = [_with_category(entry) for entry in content["annotations"]]
        text = json.dumps(content | {"annotations": annotations})
        (output / f"annotations/rgb_{split}.json").write_text(text)
        dataset = read_coco(output, images=f"{split}_rgb", annotations=f"annotations/rgb_{split}.json")
        for image in dataset.images:
            pixels = _add_depth(read_image(image.path), image.annotations, seed=image.id)
            _write(output / split / f"{image.path.stem}{suffix}", pixels)
        images = [
            image | {"file_name": str(Path(image["file_name"]).with_suffix(suffix))}
            for image in content["images"]
        ]
        text = json.dumps(content | {"annotations": annotations, "images": images})
        (output / f"annotations/instances_{split}.json").write_text(text)


def _with_category(entry: dict) -> dict:
    """An object of a random category, without keypoints."""
    kept = {name: value for name, value in entry.items() if "keypoints" not in name}
    return kept | {"category_id": int(np.random.default_rng(entry["id"]).integers(1, 3))}


def _add_depth(rgb: np.ndarray, objects: Sequence[CocoAnnotation], *, seed: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    rng = np.random.default_rng(seed)
    depth = np.linspace(6000, 4000, height)[:, None] + np.zeros(width)
    for item in objects:
        mask = pixels_of(item.segmentation, 0, 0, height, width)
        depth[mask] = rng.uniform(*(_NEAR if item.label == 1 else _FAR))
    depth += rng.normal(0, 50, depth.shape)
    return np.concatenate([rgb, depth.round()[:, :, None]], axis=2).astype(np.uint16)


def _write(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        import tifffile

        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", compression="zlib")


if __name__ == "__main__":
    make_depth_shapes(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
