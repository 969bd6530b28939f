"""A synthetic dataset of drawn shapes in COCO format; the same seed gives the same files."""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_jax.data import shapes_scene
from mrcnn_jax.data.shapes_scene import SceneObject
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.rle import Rle, UncompressedRle

MARKER = "shapes.json"  # holds the settings of a folder written by make_shapes
_VERSION = 1  # increase when the same settings give different pictures
# OKS sigma of every keypoint: between those of COCO's wrists (.062) and hips (.107).
_SIGMA = 0.08


def make_shapes(
    output: str | Path,
    *,
    train: int,
    val: int,
    image_size: int,
    seed: int,
    workers: int = 1,
    progress: Callable[[int], Any] = lambda done: None,
) -> bool:
    """Writes the dataset to ``output``; returns False if the same one is already there, else True.

    Writes ``train/`` and ``val/`` with JPEG images, ``annotations/instances_{train,val}.json`` and the marker
    ``shapes.json``, all or nothing. Picture ``i`` of a split depends on ``seed``, ``image_size`` and ``i``
    alone.

    Args:
        output: Folder to create.
        train: Number of training images.
        val: Number of validation images.
        image_size: Height and width, in pixels, at least 32.
        seed: Seed of all random numbers, at least 0.
        workers: Processes that draw; the files do not depend on their number. More than 1 are spawned, so the
            calling program must be importable.
        progress: Called after each image with the number of images done so far.

    Raises:
        ValueError: if a number is out of range, or ``output`` exists and is neither empty nor such a dataset
            with the same settings.
    """
    output = Path(output)
    if train < 1 or val < 1 or image_size < 32 or seed < 0:
        raise ValueError(
            f"train ({train}) and val ({val}) must be at least 1, image_size ({image_size}) at least 32, "
            f"seed ({seed}) at least 0"
        )
    settings = {"version": _VERSION, "train": train, "val": val, "image_size": image_size, "seed": seed}
    if output.exists():
        if _settings(output) == settings:
            return False
        _check_empty(output, settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        unfinished.chmod(0o755)
        (unfinished / "annotations").mkdir()
        done = 0
        with _mapping(workers) as in_order:
            for split, count in (("train", train), ("val", val)):
                (unfinished / split).mkdir()
                content = _empty_annotations()
                write = partial(_write_image, unfinished / split, size=image_size, seed=seed)
                for index, annotations in enumerate(in_order(write, range(count))):
                    _add_image(content, index, image_size, annotations)
                    done += 1
                    progress(done)
                text = json.dumps(content, separators=(",", ":"))
                (unfinished / "annotations" / f"instances_{split}.json").write_text(text)
        write_json(unfinished / MARKER, settings)
        os.rename(unfinished, output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _settings(folder: Path) -> Any:
    try:
        return read_json(folder / MARKER)
    except (OSError, ValueError):
        return None


def _check_empty(output: Path, settings: dict) -> None:
    if not output.is_dir():
        raise ValueError(f"{output}: is a file; must be a folder")
    found = _settings(output)
    if found is not None:
        raise ValueError(
            f"{output}: holds a dataset with other settings, {found} instead of {settings}; "
            "choose another folder or delete this one first"
        )
    if any(output.iterdir()):
        raise ValueError(f"{output}: is neither empty nor made by this program; left unchanged")


def _empty_annotations() -> dict[str, list[dict[str, Any]]]:
    categories: list[dict[str, Any]] = [
        {"id": category, "name": name, "supercategory": "shape"}
        for category, name in enumerate(shapes_scene.CATEGORIES, start=1)
    ]
    categories[-1] |= {
        "keypoints": list(shapes_scene.KEYPOINTS),
        "skeleton": [[a + 1, b + 1] for a, b in shapes_scene.SKELETON],
        "sigmas": [_SIGMA] * len(shapes_scene.KEYPOINTS),
    }
    return {"images": [], "annotations": [], "categories": categories}


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A lazy ``map`` whose results come in order, computed by ``workers`` processes; ended on leaving."""
    if workers == 1:
        yield map
        return
    # An interrupt reaches every process of the terminal: the one that collects the results ends the others.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("spawn").Pool(workers, signal.signal, ignore) as pool:
        yield partial(pool.imap, chunksize=16)


def _write_image(folder: Path, index: int, *, size: int, seed: int) -> list[dict[str, Any]]:
    """Draws picture ``index`` of a split and writes it into the split's folder; returns its annotations."""
    stream = np.random.SeedSequence(seed, spawn_key=(folder.name == "val", index))
    picture, scene = shapes_scene.draw_scene(np.random.Generator(np.random.Philox(stream)), size)
    # No chroma subsampling: the smallest objects are a few pixels wide.
    Image.fromarray(picture).save(folder / _file_name(index), quality=95, subsampling=0)
    return [_annotation(item) for item in scene]


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"


def _add_image(
    content: dict[str, list[dict[str, Any]]], index: int, size: int, annotations: list[dict[str, Any]]
) -> None:
    """Adds the entries of picture ``index`` of a split and of its objects."""
    image = {"id": index + 1, "file_name": _file_name(index), "height": size, "width": size}
    content["images"].append(image)
    for annotation in annotations:
        ids = {"id": len(content["annotations"]) + 1, "image_id": image["id"]}
        content["annotations"].append(ids | annotation)


def _annotation(item: SceneObject) -> dict[str, Any]:
    """The object as a COCO entry: polygons if it is fully visible, otherwise an RLE of the visible part."""
    size = item.mask.shape[0]
    corners = np.concatenate(item.polygons)
    whole = corners.min() >= 0 and corners.max() <= size and np.array_equal(item.visible, item.mask)
    segmentation: list[list[float]] | UncompressedRle
    if whole and not item.crowd:
        segmentation = [np.round(polygon, 2).ravel().tolist() for polygon in item.polygons]
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    else:
        segmentation = Rle.from_bitmap(item.visible).uncompressed()
        box = np.array(shapes_scene.mask_bounds(item.visible))
    entry: dict[str, Any] = {
        "category_id": shapes_scene.CATEGORIES.index(item.category) + 1,
        "bbox": np.round([*box[:2], *(box[2:] - box[:2])], 2).tolist(),
        "area": int(item.visible.sum()),
        "iscrowd": int(item.crowd),
        "segmentation": segmentation,
    }
    if item.keypoints is not None:
        points = [_keypoint(x, y, item) for x, y in np.round(item.keypoints, 2).tolist()]
        entry["keypoints"] = [value for point in points for value in point]
        entry["num_keypoints"] = sum(point[2] > 0 for point in points)
    return entry


def _keypoint(x: float, y: float, item: SceneObject) -> tuple[float, float, int]:
    """A point with COCO's visibility: 2 visible, 1 behind another object, 0 (at 0 0) outside the picture."""
    height, width = item.mask.shape
    if not (0 <= x < width and 0 <= y < height):
        return 0, 0, 0
    hidden = item.mask[int(y), int(x)] and not item.visible[int(y), int(x)]
    return x, y, 1 if hidden else 2
