"""Makes the record of one image, in worker processes that do not import TensorFlow."""

from typing import Any

import numpy as np

from mrcnn_jax.data.check_images import load_checked
from mrcnn_jax.data.coco import CocoImage
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.objects import read_objects
from mrcnn_jax.pixels import PixelFormat


def make_record(
    task: tuple[CocoImage, int, int, PixelFormat],
) -> tuple[dict[str, Any] | None, Finding | None]:
    """The record for ``task`` (image, mask grid S, number of keypoints, format of its pixels), and what
    ``load_checked`` found.

    The record is None if the file is bad.
    """
    image, mask_grid, num_keypoints, pixels = task
    data, finding = load_checked(image, pixels)
    if data is None:
        return None, finding
    objects = read_objects(image, mask_grid=mask_grid, num_keypoints=num_keypoints)
    record = {
        "image": data,
        # File names on Linux are arbitrary bytes; Python represents non-UTF-8 ones as surrogates.
        "name": image.file_name.encode(errors="surrogateescape"),
        "id": image.id,
        "size": np.array([image.height, image.width], np.int32),
        "boxes": objects.boxes,
        "labels": objects.labels,
        "crowd": objects.crowd,
        "ids": objects.ids,
        "areas": objects.areas,
        "masks": objects.masks,
    }
    if num_keypoints:
        record["keypoints"] = objects.keypoints.reshape(len(objects), 3 * num_keypoints)
    return record, finding
