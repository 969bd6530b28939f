"""Says in words what is wrong with a false detection, as TIDE tells mistakes apart (arXiv 2008.08115)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from hotcoco import mask

from mrcnn_jax.evaluation.diagnosis import IOU

_BACKGROUND = 0.1  # IoU up to which a detection is of nothing


def describe_mistake(
    entry: dict[str, Any],
    objects: Sequence[dict[str, Any]],
    kind: Literal["bbox", "segm"],
    names: dict[int, str],
) -> str:
    """What is annotated where a false detection is, as in "annotated as square (IoU 0.91)".

    ``entry`` and ``objects``, those of its image, are COCO's entries; ``names`` are of categories by id.
    """
    field = "bbox" if kind == "bbox" else "segmentation"
    known = [item for item in objects if not item["iscrowd"]]
    if not known:
        return "nothing is annotated there"
    overlaps = np.asarray(
        mask.iou([entry[field]], [item[field] for item in known], [False] * len(known)), np.float64
    )[0]
    same = np.array([item["category_id"] == entry["category_id"] for item in known])
    best_same = float(overlaps[same].max(initial=0))
    other = np.where(same, 0, overlaps)
    best_other, name = float(other.max()), names[known[int(np.argmax(other))]["category_id"]]
    if best_other >= IOU and best_other > best_same:
        return f"annotated as {name} (IoU {best_other:.2f})"
    if best_same >= IOU:
        return f"a second detection of the same object (IoU {best_same:.2f})"
    if best_same > _BACKGROUND:
        return f"inaccurate: IoU {best_same:.2f} with the object"
    if best_other > _BACKGROUND:
        return f"inaccurate, and annotated as {name} (IoU {best_other:.2f})"
    return "nothing is annotated there"
