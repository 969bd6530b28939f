"""Proposals of a data set in a file, which ``mrcnn-jax propose`` writes and models without an RPN read.

The file is an uncompressed .npz with these arrays, for N images and M proposals:

    ids         int64 [N]: COCO image ids, all different
    offsets     int64 [N+1]: the proposals of image n are rows offsets[n] to offsets[n+1]
    boxes       float32 [M 4]: x1 y1 x2 y2 in pixels of the original image
    objectness  float32 [M]: logits, of each image in descending order

If ``mrcnn-jax propose`` made it with a model, ``made_with`` says with which weights and settings, as JSON.

Shapes: N images, M proposals of all images, P proposals of one image, C rows of a batch per image.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.images import Size
from mrcnn_jax.proposal_records import RecordWriter, write_npz

_ARRAYS = {"ids": ("i8", 1), "offsets": ("i8", 1), "boxes": ("f4", 2), "objectness": ("f4", 1)}
_OUTSIDE = 1.0  # pixels that a box may reach beyond its image: other tools round, or count the last pixel


@dataclass(frozen=True, eq=False)
class ImageProposals:
    """The proposals of one image, best first, in pixels of the original image."""

    boxes: np.ndarray  # [P 4] float32 x1 y1 x2 y2
    objectness: np.ndarray  # [P] float32 logits


@dataclass(frozen=True, eq=False)
class ProposalFile:
    """The content of a file of proposals."""

    name: str  # the path, for messages
    ids: np.ndarray  # [N] int64
    offsets: np.ndarray  # [N+1] int64
    boxes: np.ndarray  # [M 4] float32
    objectness: np.ndarray  # [M] float32

    def of_images(self, ids: np.ndarray, sizes: np.ndarray, *, source: str) -> "DataProposals":
        """The proposals of the images ``ids [N]`` of ``sizes [N 2]`` (height, width), in this order.

        The file may have further images. ``source`` names the images in messages.

        Raises ValueError, naming the file, for images that it does not have, and for boxes that are not of
        their image: empty the wrong way round, or more than a pixel outside.
        """
        row_of = {image_id: row for row, image_id in enumerate(self.ids.tolist())}
        missing = [image_id for image_id in ids.tolist() if image_id not in row_of]
        if missing:
            raise ValueError(
                f"{self.name}: has no proposals for {len(missing)} of the {len(ids)} images of {source}, "
                f"such as image {missing[0]}; make a file for these images with mrcnn-jax propose"
            )
        rows = np.array([row_of[image_id] for image_id in ids.tolist()], np.int64)
        for row, (height, width) in zip(rows.tolist(), sizes.tolist(), strict=True):
            boxes = self.boxes[self.offsets[row] : self.offsets[row + 1]]
            inside = (boxes >= -_OUTSIDE) & (boxes <= np.array([width, height] * 2) + _OUTSIDE)
            wrong = ~inside.all(axis=1) | (boxes[:, :2] > boxes[:, 2:]).any(axis=1)
            if wrong.any():
                raise ValueError(
                    f"{self.name}: image {self.ids[row]}: the box {boxes[wrong][0].tolist()} must be x1 y1 "
                    f"x2 y2 within the image, which {source} says is {width} pixels wide and {height} high"
                )
        return DataProposals(self, rows)


@dataclass(frozen=True, eq=False)
class DataProposals:
    """The proposals of a data source's images, by the image's index there."""

    file: ProposalFile
    rows: np.ndarray  # [N] int64: row of each image in the file

    def __getitem__(self, index: int) -> ImageProposals:
        start, end = self.file.offsets[self.rows[index] :][:2]
        return ImageProposals(self.file.boxes[start:end], self.file.objectness[start:end])


def read_proposals(path: str | Path) -> ProposalFile:
    """The proposals in a file that ``write_proposals`` wrote.

    Raises OSError if the file cannot be read, and ValueError, naming it and where possible the image, if it
    is not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of proposals")
    try:
        with zipfile.ZipFile(path) as archive:  # compressed, a small file could fill the memory
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path) as archive:  # never unpickles
            arrays = {name: archive[name] for name in _ARRAYS}
        for name, (dtype, axes) in _ARRAYS.items():
            array = arrays[name]
            if array.dtype != np.dtype(dtype) or array.ndim != axes:
                raise ValueError(
                    f"{name} is {array.dtype} {list(array.shape)}, must be {dtype} of {axes} axes"
                )
    except Exception as error:  # NumPy and zipfile raise nearly anything for a damaged file
        hint = "; mrcnn-jax propose converts those of Detectron2" if path.suffix == ".pkl" else ""
        raise ValueError(
            f"{path}: is not a file of proposals as mrcnn-jax propose writes it: {error}{hint}"
        ) from error
    ids, offsets, boxes, objectness = arrays.values()
    problem = ""
    if len(offsets) != len(ids) + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        problem = f"offsets must be {len(ids) + 1} ascending numbers from 0, one more than there are ids"
    elif boxes.shape != (offsets[-1], 4) or objectness.shape != (offsets[-1],):
        problem = (
            f"boxes {list(boxes.shape)} and objectness {list(objectness.shape)} must have {offsets[-1]} rows"
        )
    elif len(np.unique(ids)) < len(ids):
        problem = "ids must all be different"
    if problem:
        raise ValueError(f"{path}: is not a file of proposals: {problem}")
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(objectness)
    if not finite.all():
        row = int(np.argmin(finite))
        image_id = ids[np.searchsorted(offsets, row, side="right") - 1]
        raise ValueError(
            f"{path}: image {image_id}: a box or its objectness is not finite: {boxes[row].tolist()}"
        )
    return ProposalFile(str(path), ids, offsets, boxes, objectness)


def write_proposals(path: str | Path, proposals: Iterable[tuple[int, ImageProposals]]) -> int:
    """Writes the proposals of images, given with their ids, and returns their number.

    Those of an image are sorted by objectness. Nobody sees an unfinished file. Raises FileExistsError if
    there is a file at ``path``.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: already exists; remove it, or choose another file")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        with RecordWriter(Path(folder) / "records") as writer:
            records = [
                writer.append(image_id, image.boxes, image.objectness) for image_id, image in proposals
            ]
        unfinished = Path(folder) / path.name
        count = write_npz(unfinished, records, made_with="")
        unfinished.replace(path)
    return count


def read_made_with(path: str | Path) -> dict[str, Any] | None:
    """What ``mrcnn-jax propose`` made the file with, by name; None for a file that does not say so."""
    try:
        with np.load(path) as archive:
            content = json.loads(str(archive["made_with"]))
    except Exception:  # NumPy and zipfile raise nearly anything for a file of another kind
        return None
    return content if isinstance(content, dict) else None


def pad_proposals(
    boxes: np.ndarray, objectness: np.ndarray, *, size: Size, count: int
) -> dict[str, np.ndarray]:
    """The fields of ``types.Proposals`` of one image: C = ``count`` rows, the best first.

    Boxes ``[P 4]``, best first, are in pixels of the resized image, and clipped to its ``size``; those of
    which nothing is left are dropped before the best are taken (D2's ``transform_proposals``).
    """
    boxes = np.clip(boxes, 0, np.array([size[1], size[0]] * 2)).astype(np.float32)
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[:count]
    rows = np.zeros((count, 4), np.float32)
    scores = np.full(count, -np.inf, np.float32)
    rows[: len(kept)], scores[: len(kept)] = boxes[kept], objectness[kept]
    return {"boxes": rows, "scores": scores, "valid": np.arange(count) < len(kept)}
