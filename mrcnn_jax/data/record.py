"""One record of a data set, made in a process that need not know TensorFlow."""

from typing import Any

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoImage
from mrcnn_jax.data.objects import read_objects
from mrcnn_jax.data.source import check_size


def make_record(task: tuple[CocoImage, str, int, int]) -> dict[str, Any]:
    """The record of (an image, its data set's name, S, the number of keypoints)."""
    image, where, mask_grid, num_keypoints = task
    data = images.read_file(image.path)
    pixels = images.decode_image(data, name=str(image.path))
    check_size(pixels, (image.height, image.width), f"{image.path}: image {image.id} of {where}")
    objects = read_objects(image, mask_grid=mask_grid, num_keypoints=num_keypoints)
    record = {
        "image": data,
        "name": image.file_name,
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
