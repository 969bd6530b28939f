"""Reads files of proposals in Detectron2's format, and in the older one of Detectron."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.weights.pickles import NUMPY_BUILDERS, Stored, read_pickle

_OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # of Detectron's files
_XYXY, _XYWH = 0, 1  # detectron2.structures.BoxMode: absolute pixels


def read_detectron2_proposals(path: str | Path) -> Iterator[tuple[int, ImageProposals]]:
    """The image ids and proposals in a file that Detectron2's configs name as ``PROPOSAL_FILES``.

    That is a pickled dict of "ids", "boxes" and "objectness_logits", lists with an item per image, and
    "bbox_mode" (absent: x1 y1 x2 y2). No code in it is run.

    Raises OSError if the file cannot be read, and ValueError, naming it and where possible the image, if it
    is not such a file.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            content = read_pickle(stream, {**NUMPY_BUILDERS, "detectron2.structures.boxes.BoxMode": _mode})
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a dict")
        content = {_OLD_NAMES.get(name, name): value for name, value in content.items()}
        lists = [content.get(name) for name in ("ids", "boxes", "objectness_logits")]
        if not all(isinstance(items, list) for items in lists):
            raise ValueError("it must have lists 'ids', 'boxes' and 'objectness_logits'")
        ids, boxes, logits = (list(items) for items in lists if items is not None)
        if not len(ids) == len(boxes) == len(logits):
            raise ValueError(f"it has {len(ids)} ids, {len(boxes)} boxes and {len(logits)} objectness_logits")
        mode = _integer(content.get("bbox_mode", _XYXY))
        if mode not in (_XYXY, _XYWH):
            raise ValueError(f"its bbox_mode is {mode}; must be 0 (XYXY_ABS) or 1 (XYWH_ABS)")
    except ValueError as error:
        raise ValueError(f"{path}: is not a file of Detectron2's proposals: {error}") from error
    for image_id, image_boxes, image_logits in zip(ids, boxes, logits, strict=True):
        try:
            yield _integer(image_id), _image(_array(image_boxes), _array(image_logits), mode)
        except ValueError as error:
            raise ValueError(f"{path}: image {str(image_id)[:20]!r}: {error}") from error


def _image(boxes: np.ndarray, logits: np.ndarray, mode: int) -> ImageProposals:
    logits = logits.reshape(-1)  # [P 1] in some files
    if boxes.shape != (len(logits), 4):
        raise ValueError(
            f"boxes {list(boxes.shape)} must be [{len(logits)} 4], as it has {len(logits)} logits"
        )
    if mode == _XYWH:
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if not (np.isfinite(boxes).all() and np.isfinite(logits).all()):
        raise ValueError("a box or its objectness is not finite")
    return ImageProposals(boxes.astype(np.float32), logits.astype(np.float32))


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, Stored):
        raise ValueError(f"expected an array, found {type(value).__name__}")
    array = value.array()
    if array.dtype.kind != "f":
        raise ValueError(f"an array is {array.dtype}, must be of floats")
    return array


def _integer(value: Any) -> int:
    """The integer of a number, an array of one number, or text, as which COCO's ids may be given."""
    if isinstance(value, Stored):
        value = value.array().reshape(-1)[:1].tolist()[0]
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int):
        raise ValueError(f"expected an integer, found {str(value)[:20]!r}")
    return value


def _mode(arguments: tuple) -> int:
    """The number of a pickled ``BoxMode``, an enum."""
    match arguments:
        case (int(number),):
            return number
    raise ValueError("the pickle has a BoxMode without a number")
