"""One record of a data set, made in a process that need not know TensorFlow."""

from typing import Any

import numpy as np

from mrcnn_jax.data.check_images import load_checked
from mrcnn_jax.data.coco import CocoImage
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.objects import read_objects


def make_record(task: tuple[CocoImage, int, int]) -> dict[str, Any] | Finding:
    """The record of (an image, S, the number of keypoints), or what is wrong with the image's file."""
    image, mask_grid, num_keypoints = task
    data = load_checked(image)
    if isinstance(data, Finding):
        return data
    objects = read_objects(image, mask_grid=mask_grid, num_keypoints=num_keypoints)
    record = {
        "image": data,
        # Linux allows any bytes in the name of a file; Python has those that are not UTF-8 as surrogates.
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
    return record
