"""Runs a model that ``mrcnn-jax export`` wrote; it needs NumPy, jax and flatbuffers, or onnxruntime.

    python model.mrcnn image.npy photo.jpg

runs the copy of this file that the model has, and prints a line of JSON per image. From Python:

    (found,) = runner.load("model.mrcnn")([pixels])  # uint8 RGB [H W 3], any number of images of any size
    (found,) = runner.load_onnx("model.onnx")([pixels])  # likewise

``found`` has boxes [N 4] (x1 y1 x2 y2 in pixels), scores [N], labels [N] (from 1), names and category_ids,
best first; with masks, crops (top, left, bool [h w]) of each and segmentations, COCO's compressed RLE; with
keypoints, keypoints [N K 3] (x, y, score). A .mrcnn file's have the bits of mrcnn_jax's detector, an .onnx
file's differ by rounding (docs/deployment.md, docs/onnx.md).
"""

import json
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

VERSION = 1  # of the file format
# XLA's defaults are slow on a CPU, and give wrong values in some graphs: mrcnn_jax/runtime/compilations.py.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_backend_optimization_level": 2,
}
# A program is not trusted, and a custom call could be one of any function in this process. A model's programs
# have none, apart from a TPU's kernels.
CUSTOM_CALL = re.compile(r"\bcustom_call\b(?! @tpu_custom_call\()")

Size = tuple[int, ...]  # height, width
Crop = tuple[int, int, np.ndarray]  # top, left, and a mask bool [h w]; outside it the mask is false


def load(path: str) -> "Model":
    """The model in a file. Raises ValueError, naming the file and the rule, if it is damaged or unfit."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()  # uncompressed, so that a small file cannot fill the memory
            size = sum(entry.file_size for entry in entries)
            if any(entry.compress_type for entry in entries) or size > os.path.getsize(path):
                raise ValueError("its entries must be uncompressed")
            return Model({entry.filename: archive.read(entry) for entry in entries})
    except (LookupError, TypeError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: is damaged or not from mrcnn-jax export: {error!r}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_onnx(path: str, *, threads: int = 0) -> "OnnxModel":
    """The model in an .onnx file, for ONNX Runtime on a CPU with so many ``threads``; 0: one for each core.

    Raises ValueError, naming the file, if ``mrcnn-jax export`` did not write it or ONNX Runtime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(image: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {"image": image}), strict=True))

        return OnnxModel(session.get_modelmeta().custom_metadata_map, run)
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime has many of its own
        raise ValueError(f"{path}: is damaged or not from mrcnn-jax export: {error!r}") from error


class Detector:
    """What a file of either kind says of its model, and what is done with the images and what is found."""

    channels: int  # of an image

    def __init__(self, texts: dict[str, Any]) -> None:
        self.manifest, self.config, self.categories = (
            json.loads(texts[name]) for name in ("manifest", "config", "categories")
        )
        if (version := self.manifest["version"]) != VERSION:
            raise ValueError(f"has format {version}, not {VERSION}: take the runner.py inside it")

    def check(self, images: list[np.ndarray]) -> None:
        """Raises ValueError for an image that is not of 8-bit pixels with the model's channels."""
        for number, image in enumerate(images):
            if getattr(image, "dtype", None) != np.uint8 or image.shape[2:] != (self.channels,):
                raise ValueError(f"image {number} must be a uint8 array [H W {self.channels}]")

    def resized_shape(self, image: np.ndarray) -> Size:
        """The size to which an image must be resized for the model."""
        rule, manifest = self.config["data"]["resize"], self.manifest
        return resized_shape(image.shape[:2], manifest["short_side"], manifest["long_side"], rule)

    def finish(self, found: dict[str, np.ndarray], size: Size, image_size: Size) -> dict[str, Any]:
        """The valid objects of an image, scaled from its resized ``size`` to its own."""
        (height, width), test, categories = image_size, self.config["test"], self.categories
        scale = np.array([width / size[1], height / size[0]], np.float32)
        limit = np.array([width, height, width, height], np.float32)
        boxes = np.clip(found["boxes"] * np.tile(scale, 2), 0, limit)
        keep = np.flatnonzero(found["valid"] & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        boxes, labels = boxes[keep], found["labels"][keep]
        result: dict[str, Any] = {"boxes": boxes, "scores": found["scores"][keep], "labels": labels}
        result["names"], result["category_ids"] = (
            [categories[field][label - 1] for label in labels] for field in ("names", "ids")
        )
        if "masks" in found:
            paste = paste_in_whole_pixels if test["mask_paste"] == "torchvision" else paste_at_centres
            masks = zip(found["masks"][keep].astype(np.float32), boxes, strict=True)
            result["crops"] = [paste(*mask, image_size, test["mask_threshold"]) for mask in masks]
            result["segmentations"] = [to_rle(crop, image_size) for crop in result["crops"]]
        if "keypoints" in found:
            keypoints = found["keypoints"][keep]
            keypoints[..., :2] *= scale
            keypoints[~np.isin(labels, categories["keypoint_labels"])] = 0
            result["keypoints"] = keypoints
        return result


class Model(Detector):
    """Called with a list of images, it returns a list of what was found; see the module."""

    def __init__(self, files: dict[str, bytes]) -> None:
        import jax

        super().__init__({name: files[f"{name}.json"] for name in ("manifest", "config", "categories")})
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        set_by_user = any(f"--{name}" in os.environ.get("XLA_FLAGS", "") for name in CPU_OPTIONS)
        tried = platform == "cpu" and jax.__version__.startswith(("0.10.", "0.12.")) and not set_by_user
        self.programs: dict[Size, dict[int, Any]] = {}  # by canvas, then by batch size
        for name in files:
            if name.startswith(f"programs/{platform}-"):
                exported = _deserialize(files[name], self.manifest["jax"])
                images = exported.in_avals[-2]
                (batch, *canvas, self.channels), self.dtype = images.shape, images.dtype
                program = jax.jit(exported.call, compiler_options=CPU_OPTIONS if tried else {})
                self.programs.setdefault(tuple(canvas), {})[batch] = program
        if not self.programs:
            there = {name.split("/")[1].split("-")[0] for name in files if name.startswith("programs/")}
            others = f"has programs for {', '.join(sorted(there))}, but jax runs on {platform}"
            raise ValueError(f"{others} (JAX_PLATFORMS=NAME selects a platform)")
        self.weights = jax.device_put(_read_safetensors(files["weights.safetensors"]))

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        import jax

        self.check(images)
        fitted: list[tuple[np.ndarray, Size]] = [self._fit(image) for image in images]
        found: list[Any] = [None] * len(images)
        for canvas, programs in self.programs.items():
            rows = [row for row, (_, own) in enumerate(fitted) if own == canvas]
            while rows:
                batch = min((size for size in programs if size >= len(rows)), default=max(programs))
                pixels = np.zeros((batch, *canvas, self.channels), self.dtype)
                sizes = np.full((batch, 2), canvas, np.int32)
                for place, row in enumerate(rows[:batch]):
                    height, width = sizes[place] = fitted[row][0].shape[:2]
                    pixels[place, :height, :width] = fitted[row][0]
                outputs = jax.device_get(programs[batch](self.weights, pixels, sizes))
                for place, row in enumerate(rows[:batch]):
                    own = {name: values[place] for name, values in outputs.items()}
                    found[row] = self.finish(own, sizes[place].tolist(), images[row].shape[:2])
                rows = rows[batch:]
        return found

    def _fit(self, image: np.ndarray) -> tuple[np.ndarray, Size]:
        """The resized image, and its canvas: the smallest that it fits, or the one that shrinks it least."""
        shape = self.resized_shape(image)
        scales = {canvas: min(canvas[0] / shape[0], canvas[1] / shape[1]) for canvas in self.programs}
        canvas = max(scales, key=lambda canvas: (min(1.0, scales[canvas]), -canvas[0] * canvas[1]))
        if scales[canvas] < 1:
            sides = (int(side * scales[canvas] + 0.5) for side in shape)
            shape = tuple(max(1, min(most, side)) for most, side in zip(canvas, sides, strict=True))
        return resize(image, shape, self.config["data"]["resize"]), canvas


class OnnxModel(Detector):
    """The same for an ONNX file, of whose metadata ``texts`` are made.

    ``run`` takes a resized image, float32 [H W C], and returns the file's outputs by name.
    """

    def __init__(self, texts: dict[str, str], run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> None:
        super().__init__(texts)
        self.channels, self.run = len(self.config["model"]["pixel_mean"]), run

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        self.check(images)
        found = []
        for image in images:
            shape = self.resized_shape(image)
            outputs = self.run(resize(image, shape, self.config["data"]["resize"]).astype(np.float32))
            valid = np.ones(len(outputs["scores"]), bool)
            found.append(self.finish({**outputs, "valid": valid}, shape, image.shape[:2]))
        return found


def _deserialize(content: bytes, version: str) -> Any:
    import jax

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
    """The arrays of a .safetensors file, all float32, by name."""
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(content[start + first : start + last], np.float32)
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def resized_shape(size: Size, short_side: int, long_side: int, rule: str) -> Size:
    """The size with the short side at ``short_side``, or less if the long one would exceed ``long_side``."""
    scale = short_side / min(size)
    if rule == "detectron2":
        sides = [float(short_side) if side == min(size) else scale * side for side in size]
        sides = [side * min(1, long_side / max(sides)) for side in sides]
    else:
        sides = [side * min(scale, long_side / max(size)) for side in size]
    return tuple(max(1, int(side + (0 if rule == "torchvision" else 0.5))) for side in sides)


def resize(image: np.ndarray, shape: Size, rule: str) -> np.ndarray:
    """The image resized to ``shape`` bilinearly, an axis at a time, with the bits of each rule's system.

    "detectron2" is Pillow 13: antialiased, in fixed point with 22 bits. The others are not antialiased:
    "torchvision" is torch, in float32, and "mmdetection" is OpenCV, in fixed point with 11 bits.
    """
    fewer_rows, fewer_columns = (old - new for old, new in zip(image.shape, shape, strict=False))
    rows_first = rule == "torchvision" or (rule == "detectron2" and fewer_rows > max(0, 2 * fewer_columns))
    values: Any = image.astype(np.float32) if rule == "torchvision" else image
    for axis in (0, 1) if rows_first else (1, 0):
        old, new = image.shape[axis], shape[axis]
        along_axis = (-1, 1, 1) if axis == 0 else (-1, 1)
        if rule == "detectron2":
            taps, weights = _antialiased(old, new)
            total: Any = 2**21
            for tap, weight in zip(taps, weights, strict=True):
                total = total + values.take(tap, axis) * weight.reshape(along_axis)
            values = (total >> 22).astype(np.uint8)
            continue
        taps, share = _neighbours(old, new, rule)
        (low, high), share = (values.take(tap, axis) for tap in taps), share.reshape(along_axis)
        if rule == "torchvision":
            values = low + (high - low) * share
        else:
            low, high = low * _in_2048ths(1 - share), high * _in_2048ths(share)
            values = (low + high) >> 4 if axis == 1 else ((low >> 16) + (high >> 16) + 2) >> 2
    return values if rule == "torchvision" else values.astype(np.uint8)


def _antialiased(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """The old pixels under each of ``new`` pixels [taps new], and their weights, which add up to 2^22."""
    support = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * (old / new)
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), old)
    taps = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((taps - centre + 0.5) * (1 / support)), 0) * (taps < last)
    weights = (weights / np.add.accumulate(weights)[-1] * 2**22 + 0.5).astype(np.int32)
    return np.minimum(taps, old - 1), weights


def _neighbours(old: int, new: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """The two old pixels around each of ``new`` pixels [2 new], and the second's share [new]."""
    scale = np.float64(np.float32(old / new) if rule == "torchvision" else old / new)
    position = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    low = np.floor(position)
    return np.clip(np.stack([low, low + 1]).astype(int), 0, old - 1), position - low


def _in_2048ths(share: np.ndarray) -> np.ndarray:
    return np.rint(share * np.float32(2048)).astype(np.int32)


def paste_at_centres(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """A mask in the image, by Detectron2's rule: interpolated between the centres of its cells."""
    starts, weights = [], []
    ends = box[1::-1].tolist(), box[:1:-1].tolist()  # y1 x1, y2 x2
    for low, high, cells, size in zip(*ends, mask.shape, image_size, strict=True):
        half_cell = (high - low) / cells / 2
        first = min(max(int(np.floor(low - half_cell)), 0), size)
        last = max(min(int(np.ceil(high + half_cell)), size), first)
        position = (np.arange(first, last) + 0.5 - low) * (cells / (high - low)) - 0.5
        starts.append(first)
        weights.append(np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0).astype(np.float32))
    return *starts, weights[0] @ mask @ weights[1].T >= threshold


def paste_in_whole_pixels(mask: np.ndarray, box: np.ndarray, image_size: Size, threshold: float) -> Crop:
    """A mask in the image, by torchvision's rule: resized to whole pixels, with a cell of zeros around it."""
    centre, half = (box[2:] + box[:2]) * 0.5, (box[2:] - box[:2]) * 0.5
    half = half * np.float32((len(mask) + 2) / len(mask))
    firsts, lasts = ((centre + side * half).astype(int).tolist()[::-1] for side in (-1, 1))
    values, starts = np.pad(mask, 1), []
    for first, last, size in zip(firsts, lasts, image_size, strict=True):
        (low, high), share = _neighbours(len(values), last - first + 1, "torchvision")
        start, stop = min(max(first, 0), size), max(min(last + 1, size), 0)
        kept = slice(start - first, max(stop, start) - first)
        low, high, share = low[kept], high[kept], share[kept, None]
        values = (values[low] * (1 - share) + values[high] * share).T
        starts.append(start)
    return *starts, values > threshold


def to_rle(crop: Crop, image_size: Size) -> dict[str, Any]:
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
