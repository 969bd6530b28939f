"""Converts annotations to the ground truth of COCO's or LVIS's metrics."""

import itertools
from functools import lru_cache
from typing import Any

import hotcoco
import numpy as np
from hotcoco import mask

from mrcnn_jax.data.coco import CocoAnnotation
from mrcnn_jax.data.federated import NOT_EXHAUSTIVE_FIELD, Federated
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.image_names import LVIS_FIELD
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories


@lru_cache(maxsize=1)  # training repeatedly evaluates on the same source
def ground_truth(source: DataSource) -> hotcoco.COCO:
    """The source's objects, with the area, crowd flag and keypoint count that COCO's metrics need.

    An area missing from the file is that of the mask, or of the box if there is no mask. Keypoint metrics
    ignore objects of a category with keypoints that have none themselves, as in COCO's own files. Objects are
    numbered from 1, because pycocotools never matches the object with id 0. Of LVIS's annotations it has the
    categories that images are annotated for, too.
    """
    federated, categories = source.federated, source.categories
    ids = itertools.count(1)
    images = list(zip(source.ids.tolist(), source.sizes.tolist(), strict=True))
    return hotcoco.COCO(
        {
            "images": [
                {"id": image_id, "height": height, "width": width, **_annotated(federated, index, categories)}
                for index, (image_id, (height, width)) in enumerate(images)
            ],
            "categories": [
                {
                    "id": category,
                    "name": name,
                    **({"frequency": federated.frequencies[index]} if federated else {}),
                }
                for index, (category, name) in enumerate(zip(categories.ids, categories.names, strict=True))
            ],
            "annotations": [
                {
                    "id": next(ids),
                    "image_id": image_id,
                    **_entry(annotation, (height, width), categories),
                }
                for index, (image_id, (height, width)) in enumerate(images)
                for annotation in source.annotations(index)
            ],
        }
    )


def _annotated(federated: Federated | None, index: int, categories: Categories) -> dict[str, list[int]]:
    """LVIS's fields of an image; none for COCO's."""
    if federated is None:
        return {}
    fields = {LVIS_FIELD: federated.negative, NOT_EXHAUSTIVE_FIELD: federated.not_exhaustive}
    return {
        name: [categories.ids[label - 1] for label in of_images[index]] for name, of_images in fields.items()
    }


def annotated_categories(source: DataSource, index: int) -> set[int]:
    """The ids of the categories that an image of LVIS is annotated for: of its objects, and negative ones."""
    labels = {item.label for item in source.annotations(index)}
    if source.federated is not None:
        labels.update(source.federated.negative[index])
    return {source.categories.ids[label - 1] for label in labels}


def object_area(annotation: CocoAnnotation, size: Size) -> float:
    """The area of an object in an image of ``size``, by which COCO's metrics tell small from large."""
    if annotation.area is not None:
        return annotation.area
    if annotation.segmentation is None:
        x1, y1, x2, y2 = annotation.box
        return (x2 - x1) * (y2 - y1)
    return float(mask.area(_encode(annotation, size)))


def _entry(annotation: CocoAnnotation, size: Size, categories: Categories) -> dict[str, Any]:
    x1, y1, x2, y2 = annotation.box
    rle = _encode(annotation, size)
    points = annotation.keypoints
    if points is None:
        points = np.zeros((len(categories.keypoint_names), 3))
    return {
        "category_id": categories.ids[annotation.label - 1],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": object_area(annotation, size),
        "iscrowd": int(annotation.crowd),
        "segmentation": rle,
        "keypoints": np.asarray(points, np.float64).ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }


def _encode(annotation: CocoAnnotation, size: Size) -> dict[str, Any]:
    """The mask as a compressed RLE; an empty mask if the object has none."""
    if isinstance(annotation.segmentation, Rle):
        return mask.frPyObjects(dict(annotation.segmentation.uncompressed()), *size)
    if not annotation.segmentation:
        return mask.frPyObjects({"size": list(size), "counts": [size[0] * size[1]]}, *size)
    polygons = [polygon.ravel().tolist() for polygon in annotation.segmentation]
    return mask.merge(mask.frPyObjects(polygons, *size))
