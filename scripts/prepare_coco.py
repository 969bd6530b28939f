#!/usr/bin/env python3
"""Makes records of a COCO data set, which training reads in any order: images as they are, masks as bits.

    scripts/prepare_coco.py --images=coco/train2017 --annotations=coco/annotations/instances_train2017.json \
        --keypoints=coco/annotations/person_keypoints_train2017.json --output=records

It prints the folder of the records, for --config.data.train_records. TFDS opens them as
coco_objects/instances_train2017 (docs/data.md says how); the second part is the annotation file's name, or
--name. Every entry is checked and every image read whole: what is damaged is listed, and an error, unless
--skip_bad leaves it out.
"""

import os
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line

_IMAGES = flags.DEFINE_string("images", None, "folder of the images", required=True)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "instances_*.json", required=True)
_KEYPOINTS = flags.DEFINE_string("keypoints", "", "person_keypoints_*.json, joined by annotation id")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write the records below", required=True)
_NAME = flags.DEFINE_string(
    "name", "", "of the records in TFDS; the annotation file's if not given, without what TFDS does not take"
)
_MASK_GRID = flags.DEFINE_integer(
    "mask_grid", 112, "cells of a mask in the frame of its box, per axis; data.mask_grid of the training",
    lower_bound=1,
)  # fmt: skip
_WORKERS = flags.DEFINE_integer("workers", None, "processes; as many as cores if not given", lower_bound=1)
_FORMAT = flags.DEFINE_enum(
    "format", "array_record", ["array_record", "tfrecord"], "tfrecord is for tfds.load alone"
)
_SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "leave out damaged images and annotations, and list them, instead of failing"
)


def main(_: list[str]) -> None:
    from mrcnn_jax.data.coco import read_coco
    from mrcnn_jax.data.findings import printable, summary
    from mrcnn_jax.data.records import prepare_records, records_name

    name = records_name(_ANNOTATIONS.value, _NAME.value)
    dataset = read_coco(
        "",
        images=_IMAGES.value,
        annotations=_ANNOTATIONS.value,
        keypoints=_KEYPOINTS.value,
        skip_bad=True,  # for now: what is damaged is reported with the images
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
    )
    if dataset.findings:
        print(summary(dataset.findings))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(dataset.images)} records, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    command_line.run(main)
