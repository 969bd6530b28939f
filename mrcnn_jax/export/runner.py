"""Runs a model that ``mrcnn-jax export`` wrote. Copy this file anywhere: it needs jax, NumPy and flatbuffers.

    python runner.py model.mrcnn image.npy image.ppm photo.jpg

prints the objects as a COCO results list; formats other than .npy and .ppm need Pillow. From Python:

    (found,) = runner.load("model.mrcnn")([pixels])  # uint8 RGB [H W 3], any number of images of any size

``found`` has boxes [N 4] (x1 y1 x2 y2 in pixels), scores [N], labels [N] (from 1) and names, best first;
with masks, crops (top, left, bool [h w]) of each mask, and segmentations, COCO's compressed RLE; with
keypoints, keypoints [N K 3] (x, y, score). They have the bits of mrcnn_jax's detector (docs/deployment.md).
"""

import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

VERSION = 1  # of the file format
# XLA's defaults are slow on a CPU, and give wrong values in some graphs: mrcnn_jax/runtime/compilations.py.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_backend_optimization_level": 2,
}
# A program is not trusted. A custom call could be one of a Python function or an address in this process; a
# model has none but the kernels of a TPU.
CUSTOM_CALL = re.compile(r"\bcustom_call\b(?! @tpu_custom_call\()")
LARGEST_SIDE = 2**14  # of a canvas, and the largest batch

Size = tuple[int, ...]  # height, width
Crop = tuple[int, int, np.ndarray]  # top, left, and a mask bool [h w]; outside it the mask is false


def load(path: str) -> "Model":
    """The model in a file. Raises ValueError, naming the file and the rule, if it is damaged or unfit."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()  # uncompressed, so that they cannot fill the memory
            size = sum(entry.file_size for entry in entries)
            if any(entry.compress_type for entry in entries) or size > os.path.getsize(path):
                raise ValueError("its entries must be uncompressed")
            manifest = json.loads(_read(archive, "manifest.json"))
            if manifest["version"] != VERSION:
                advice = "take the runner.py of the mrcnn_jax that wrote it, or export the run again"
                raise ValueError(f"has format {manifest['version']}, this runner reads {VERSION}: {advice}")
            return Model(manifest, lambda name: _read_checked(archive, name, manifest["sha256"][name]))
    except (KeyError, TypeError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: is not a model that mrcnn-jax export wrote: {error!r}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as entry:
        return entry.read(archive.getinfo(name).file_size)


def _read_checked(archive: zipfile.ZipFile, name: str, sha256: str) -> bytes:
    content = _read(archive, name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{name} is damaged: its SHA-256 is not that in manifest.json; copy the file again")
    return content


class Model:
    """Called with a list of images, it returns a list of what was found; see the module."""

    def __init__(self, manifest: dict[str, Any], read: Callable[[str], bytes]) -> None:
        self.manifest, platform = manifest, {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        files = manifest["programs"].get(platform)
        if not files:
            raise ValueError(
                f"has programs for {', '.join(manifest['programs'])}, but jax runs on {platform}"
            )
        set_by_user = any(f"--{name}" in os.environ.get("XLA_FLAGS", "") for name in CPU_OPTIONS)
        tried = platform == "cpu" and jax.__version__.startswith(("0.10.", "0.12.")) and not set_by_user
        self._programs: dict[Size, dict[int, Any]] = {}  # by canvas, then by batch size
        for name in files:
            exported = _deserialize(read(name), manifest["jax"])
            (batch, *canvas, _), self._dtype = exported.in_avals[-2].shape, exported.in_avals[-2].dtype
            if not max(batch, *canvas) <= LARGEST_SIDE:
                raise ValueError(
                    f"{name} takes {batch} images of {canvas} pixels; at most {LARGEST_SIDE} each"
                )
            program = jax.jit(exported.call, compiler_options=CPU_OPTIONS if tried else {})
            self._programs.setdefault(tuple(canvas), {})[batch] = program
        self._weights = jax.device_put(_read_safetensors(read("weights.safetensors")))

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        found: list[Any] = [None] * len(images)
        fitted = []
        for number, image in enumerate(images):
            if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                raise ValueError(f"image {number} must be a uint8 array [H W 3] (RGB)")
            fitted.append(self._fit(image))
        for canvas, programs in self._programs.items():
            rows = [row for row, (_, own) in enumerate(fitted) if own == canvas]
            while rows:
                batch = min((size for size in programs if size >= len(rows)), default=max(programs))
                pixels = np.zeros((batch, *canvas, 3), self._dtype)
                sizes = np.full((batch, 2), canvas, np.int32)
                for place, row in enumerate(rows[:batch]):
                    height, width = sizes[place] = fitted[row][0].shape[:2]
                    pixels[place, :height, :width] = fitted[row][0]
                outputs = jax.device_get(programs[batch](self._weights, pixels, sizes))
                for place, row in enumerate(rows[:batch]):
                    own = {name: values[place] for name, values in outputs.items()}
                    found[row] = self._finish(own, sizes[place].tolist(), images[row].shape[:2])
                rows = rows[batch:]
        return found

    def _fit(self, image: np.ndarray) -> tuple[np.ndarray, Size]:
        """The resized image, and its canvas: the smallest that it fits, or the one that shrinks it least."""
        data, (height, width) = self.manifest["preprocessing"], image.shape[:2]
        shape = _resized_shape(height, width, data["short_side"], data["long_side"], data["resize"])
        scales = {canvas: min(canvas[0] / shape[0], canvas[1] / shape[1]) for canvas in self._programs}
        canvas = max(scales, key=lambda canvas: (min(1.0, scales[canvas]), -canvas[0] * canvas[1]))
        if scales[canvas] < 1:
            new = (int(side * scales[canvas] + 0.5) for side in shape)
            shape = tuple(max(1, min(side, most)) for side, most in zip(new, canvas, strict=True))
        return RESIZE[data["resize"]](image, shape), canvas

    def _finish(self, found: dict[str, np.ndarray], size: Size, image_size: Size) -> dict[str, Any]:
        """The valid objects of an image, scaled from its resized ``size`` to its own."""
        settings, categories = self.manifest["postprocessing"], self.manifest["categories"]
        height, width = image_size
        scale = np.array([width / size[1], height / size[0]], np.float32)
        limit = np.array([width, height, width, height], np.float32)
        boxes = np.clip(found["boxes"] * np.tile(scale, 2), 0, limit)
        keep = np.flatnonzero(found["valid"] & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        boxes, labels = boxes[keep], found["labels"][keep]
        names = [categories["names"][label - 1] for label in labels]
        result = {"boxes": boxes, "scores": found["scores"][keep], "labels": labels, "names": names}
        if "masks" in found:
            paste = PASTE[settings["mask_paste"]]
            masks = zip(found["masks"][keep].astype(np.float32), boxes, strict=True)
            result["crops"] = [paste(*mask, image_size, settings["mask_threshold"]) for mask in masks]
            result["segmentations"] = [_to_rle(crop, image_size) for crop in result["crops"]]
        if "keypoints" in found:
            keypoints = found["keypoints"][keep]
            keypoints[..., :2] *= scale
            keypoints[~np.isin(labels, categories["keypoint_labels"])] = 0
            result["keypoints"] = keypoints
        return result

    def to_coco(self, found: dict[str, Any], image_id: int) -> list[dict[str, Any]]:
        """What was found in an image, as entries of a COCO results list."""
        categories, entries = self.manifest["categories"], []
        for i, label in enumerate(found["labels"].tolist()):
            x1, y1, x2, y2 = found["boxes"][i].tolist()
            box = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
            entry = {"image_id": image_id, "category_id": categories["ids"][label - 1], "bbox": box}
            entry |= {"category": found["names"][i], "score": round(float(found["scores"][i]), 6)}
            if "segmentations" in found:
                entry["segmentation"] = found["segmentations"][i]
            if "keypoints" in found and label in categories["keypoint_labels"]:
                points = found["keypoints"][i, :, :2] - self.manifest["postprocessing"]["keypoint_offset"]
                entry["keypoints"] = [v for x, y in points.tolist() for v in (round(x, 3), round(y, 3), 1)]
            entries.append(entry)
        return entries


def _deserialize(content: bytes, version: str) -> Any:
    try:
        exported = jax.export.deserialize(bytearray(content))
        text = exported.mlir_module()
    except ImportError:  # of flatbuffers
        raise
    except Exception as error:  # what it raises for other versions is not documented
        raise ValueError(
            f"was exported with jax {version}, and jax {jax.__version__} cannot read it ({error}): install "
            "that version, or export the run again; jax reads programs of versions up to 6 months older"
        ) from error
    if CUSTOM_CALL.search(text):
        raise ValueError("has a program with a custom call, which a model has none of")
    return exported


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The float32 arrays of a .safetensors file, by name."""
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            if entry["dtype"] != "F32":
                raise ValueError(f"array {name!r} is {entry['dtype']}; must be F32")
            first, last = entry["data_offsets"]
            arrays[name] = np.frombuffer(content[start + first : start + last], np.float32).reshape(
                entry["shape"]
            )
    return arrays


def _resized_shape(height: int, width: int, short_side: int, long_side: int, rule: str) -> Size:
    """The size with the short side at ``short_side``, or less if the long one would exceed ``long_side``."""
    if rule == "detectron2":
        scale = short_side / min(height, width)
        shape = (float(short_side), scale * width) if height < width else (scale * height, float(short_side))
        shrink = long_side / max(shape) if max(shape) > long_side else 1
        return tuple(max(1, int(side * shrink + 0.5)) for side in shape)
    scale = min(short_side / min(height, width), long_side / max(height, width))
    half = 0.5 if rule == "mmdetection" else 0
    return tuple(max(1, int(side * scale + half)) for side in (height, width))


def _resize_as_pillow(image: np.ndarray, shape: Size) -> np.ndarray:
    """Bilinear and antialiased, in fixed point with 22 bits, rounded to uint8 between the axes.

    Columns come first, unless more than twice as many rows as columns are removed, as in Pillow 13.
    """
    fewer_rows, fewer_columns = (old - new for old, new in zip(image.shape, shape, strict=False))
    for axis in (0, 1) if fewer_rows > max(0, 2 * fewer_columns) else (1, 0):
        old, new = image.shape[axis], shape[axis]
        if old == new:
            continue
        support = max(old / new, 1.0)
        centre = (np.arange(new) + 0.5) * (old / new)
        first = np.maximum((centre - support + 0.5).astype(int), 0)
        last = np.minimum((centre + support + 0.5).astype(int), old)
        taps = first + np.arange((last - first).max())[:, None]  # [taps, new]
        weights = np.maximum(1 - np.abs((taps - centre + 0.5) * (1 / support)), 0) * (taps < last)
        weights = (weights / np.add.accumulate(weights)[-1] * 2**22 + 0.5).astype(np.int32)
        total: Any = np.int32(2**21)
        for tap, weight in zip(np.minimum(taps, old - 1), weights, strict=True):
            total = total + image.take(tap, axis) * weight.reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        image = np.clip(total >> 22, 0, 255).astype(np.uint8)
    return image


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``new`` pixels the two of ``old`` around it and the second's weight, as in torch."""
    position = ((np.arange(new) + 0.5) * np.float32(old / new).astype(np.float64) - 0.5).astype(np.float32)
    position = np.maximum(position, 0)
    low = np.minimum(position.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (position - low).astype(np.float32)


def _resize_as_torch(image: np.ndarray, shape: Size) -> np.ndarray:
    """Bilinear, not antialiased, float32; rows first."""
    image = image.astype(np.float32)
    for axis in (0, 1):
        low, high, weight = _neighbours(image.shape[axis], shape[axis])
        low, high = image.take(low, axis), image.take(high, axis)
        image = low + (high - low) * weight.reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return image


def _resize_as_opencv(image: np.ndarray, shape: Size) -> np.ndarray:
    """Bilinear, not antialiased, in fixed point with 11 bits; columns first."""
    if image.shape[:2] == tuple(shape):
        return image
    values = image.astype(np.int32)
    if image.shape[:2] == (2 * shape[0], 2 * shape[1]):
        rows = values[::2] + values[1::2]
        return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    for axis in (1, 0):
        old, new = image.shape[axis], shape[axis]
        position = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
        low = np.floor(position).astype(np.int64)
        weight = position - low.astype(np.float32)
        if axis == 1:
            weight = np.where((low < 0) | (low >= old - 1), np.float32(0), weight)
        weights = [np.rint(w * np.float32(2048)).astype(np.int32) for w in (1 - weight, weight)]
        pair = [values.take(np.clip(low + i, 0, old - 1), axis) for i in (0, 1)]
        if axis == 1:
            values = (pair[0] * weights[0][:, None] + pair[1] * weights[1][:, None]) >> 4
        else:
            values = sum((p * w[:, None, None]) >> 16 for p, w in zip(pair, weights, strict=True))
    return ((values + 2) >> 2).astype(np.uint8)


def _paste_as_detectron2(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """The mask's top, left, and pixels in the image: interpolated between the centres of cells."""
    starts, weights = [], []
    for low, high, cells, size in zip(
        box[1::-1].tolist(), box[:1:-1].tolist(), mask.shape, image_size, strict=True
    ):
        half_cell = (high - low) / cells / 2
        first = min(max(int(np.floor(low - half_cell)), 0), size)
        last = max(min(int(np.ceil(high + half_cell)), size), first)
        position = (np.arange(first, last) + 0.5 - low) * (cells / (high - low)) - 0.5
        starts.append(first)
        weights.append(np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0).astype(np.float32))
    return *starts, weights[0] @ mask @ weights[1].T >= threshold


def _paste_as_torchvision(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """The mask's top, left, and pixels in the image: resized to whole pixels, a cell of zeros around it."""
    corners = box.reshape(2, 2)
    centre, half = (corners[1] + corners[0]) * 0.5, (corners[1] - corners[0]) * 0.5
    half = half * np.float32((len(mask) + 2) / len(mask))
    values, starts = np.pad(mask, 1), []
    for first, last, size in zip(
        *((centre + side * half).astype(np.int64).tolist()[::-1] for side in (-1, 1)), image_size, strict=True
    ):
        low, high, weight = _neighbours(len(values), last - first + 1)
        start, stop = min(max(first, 0), size), max(min(last + 1, size), 0)
        kept = slice(start - first, max(stop, start) - first)
        weight = weight[kept, None]
        values = (values[low[kept]] * (1 - weight) + values[high[kept]] * weight).T
        starts.append(start)
    return *starts, values > threshold


def _to_rle(crop: Crop, image_size: Size) -> dict[str, Any]:
    """COCO's compressed RLE of a mask."""
    (top, left, mask), (height, width) = crop, image_size
    columns = np.zeros((mask.shape[1], height), bool)
    columns[:, top : top + len(mask)] = mask.T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False)) + left * height
    runs = np.diff(edges, prepend=0, append=height * width).tolist()
    text = ""
    for place, run in enumerate(runs[:-1] if runs[-1] == 0 else runs):
        number, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:  # five bits at a time, lowest first; the sixth says that more follow
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return {"size": [height, width], "counts": text}


RESIZE = {"detectron2": _resize_as_pillow, "torchvision": _resize_as_torch, "mmdetection": _resize_as_opencv}
PASTE = {"detectron2": _paste_as_detectron2, "torchvision": _paste_as_torchvision}


def read_image(path: str) -> np.ndarray:
    """The RGB pixels of a file."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    if path.endswith(".ppm"):
        with open(path, "rb") as file:
            content = file.read()
        header = re.match(rb"P6\s+(?:#.*\n\s*)*(\d+)\s+(\d+)\s+255\s", content)
        if header is None:
            raise ValueError(f"{path}: is not a binary 8-bit RGB .ppm file (P6)")
        return np.frombuffer(content, np.uint8, offset=header.end()).reshape(
            int(header[2]), int(header[1]), 3
        )
    from PIL import Image, ImageOps

    return np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    try:
        model, entries = load(arguments[0]), []
        for number, path in enumerate(arguments[1:], start=1):
            (found,) = model([read_image(path)])
            entries += [{**entry, "file_name": path} for entry in model.to_coco(found, number)]
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(entries))


if __name__ == "__main__":
    main(sys.argv[1:])
