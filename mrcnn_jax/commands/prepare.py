"""Converts a COCO dataset to records with random access: images unchanged, masks as bits.

    mrcnn-jax prepare --images=coco/train2017 --annotations=coco/annotations/instances_train2017.json \
        --keypoints=coco/annotations/person_keypoints_train2017.json --output=records

Prints the folder of the records, for --config.data.train_records or val_records. TFDS opens them as
coco_objects/instances_train2017 (see docs/data.md); the second part is the annotation file's name, or --name.
Every entry is checked and every image read completely. Damaged ones are listed and make the script fail,
unless --skip_bad leaves them out.
"""

import os
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax.config.limits import LIMITS

_IMAGES = flags.DEFINE_string("images", None, "folder of images", required=True)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "instances_*.json", required=True)
_KEYPOINTS = flags.DEFINE_string("keypoints", "", "person_keypoints_*.json, joined by annotation id")
_OUTPUT = flags.DEFINE_string("output", None, "folder in which to write the records", required=True)
_NAME = flags.DEFINE_string(
    "name", "", "name of the records in TFDS; by default the annotation file's, less what TFDS does not allow"
)
_MASK_GRID = flags.DEFINE_integer(
    "mask_grid", 112, "cells per axis of a mask over its box; the data.mask_grid of training",
    lower_bound=1, upper_bound=int(LIMITS["data.mask_grid"]),
)  # fmt: skip
_WORKERS = flags.DEFINE_integer("workers", None, "processes; one per core if not given", lower_bound=1)
_FORMAT = flags.DEFINE_enum(
    "format", "array_record", ["array_record", "tfrecord"], "tfrecord is only for tfds.load"
)
_CHANNELS = flags.DEFINE_integer(
    "channels", 3, "channels of the images: as many as the model.pixel_mean of training has", lower_bound=1
)
_PIXEL_TYPE: Any = flags.DEFINE_enum(
    "pixel_type", "uint8", ["uint8", "float32"], "type of the pixels; the model.pixel_type of training"
)
_CROWDS_ARE_OBJECTS = flags.DEFINE_bool(
    "crowds_are_objects", False, "read crowds as ordinary objects; the data.crowds_are_objects of training"
)
_SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "list damaged images and annotations and leave them out, instead of failing"
)


def main(_: list[str]) -> None:
    from mrcnn_jax.data.coco import read_coco
    from mrcnn_jax.data.findings import printable, summary
    from mrcnn_jax.data.records import prepare_records, records_name
    from mrcnn_jax.pixels import PixelFormat

    name = records_name(_ANNOTATIONS.value, _NAME.value)
    dataset = read_coco(
        "",
        images=_IMAGES.value,
        annotations=_ANNOTATIONS.value,
        keypoints=_KEYPOINTS.value,
        keypoint_rule="lenient",
        crowds_are_objects=_CROWDS_ARE_OBJECTS.value,
        skip_bad=True,  # damaged entries are reported below, together with damaged images
    )
    print(f"{len(dataset.images)} images of {printable(_ANNOTATIONS.value)}", flush=True)
    folder, dataset = prepare_records(
        dataset,
        Path(_OUTPUT.value),
        name=name,
        mask_grid=_MASK_GRID.value,
        num_workers=_WORKERS.value or os.cpu_count() or 1,
        file_format=_FORMAT.value,
        skip_bad=_SKIP_BAD.value,
        pixels=PixelFormat(_CHANNELS.value, _PIXEL_TYPE.value),
    )
    if dataset.findings:
        print(summary(dataset.findings))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(dataset.images)} records, {size / 1e6:.0f} MB")
