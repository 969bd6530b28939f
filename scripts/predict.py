#!/usr/bin/env python3
"""Finds objects in images: pictures with them drawn in, and a COCO results list.

    scripts/predict.py --workdir=runs/shapes --output=out photo.jpg folder/

It writes out/photo.png for photo.jpg (photo-2.png where the name is taken) and out/detections.json, which
pycocotools' loadRes takes. An image that cannot be read is reported and the others are done; the exit code is
then 1.
"""

import sys
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the trained run", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "directory for the pictures and detections.json", required=True)
_STEP = flags.DEFINE_integer("step", None, "checkpoint to use; the newest if not given")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "images at a time", lower_bound=1)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    0.5,
    "draw objects of at least this score; detections.json has all that the model keeps "
    "(config.test.score_threshold)",
    lower_bound=0,
    upper_bound=1,
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO file to take image ids from, by file name; without it ids are 1, 2, 3 ... in order",
)


def main(arguments: list[str]) -> int:
    from mrcnn_jax.inference.files import find_images, picture_paths, read_image_ids

    if not arguments:
        raise ValueError(
            "no images given: name image files or folders, as in: predict.py ... photo.jpg folder/"
        )
    images = find_images(arguments)
    output = Path(_OUTPUT.value)
    detections_file = output / "detections.json"
    inputs = [Path(path).resolve() for path in (*images, _ANNOTATIONS.value) if path is not None]
    if detections_file.resolve() in inputs:
        raise ValueError(f"{detections_file} is an input and would be overwritten; choose another --output")
    ids = list(range(1, len(images) + 1))
    if _ANNOTATIONS.value is not None:
        ids = read_image_ids(Path(_ANNOTATIONS.value), images)

    command_line.setup_jax()
    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.inference.pictures import write_pictures
    from mrcnn_jax.json_files import write_json
    from mrcnn_jax.run_description import read_run

    config = _override(read_run(_WORKDIR.value).config)
    detector = load(_WORKDIR.value, step=_STEP.value, batch_size=_BATCH_SIZE.value, config=config)
    output.mkdir(parents=True, exist_ok=True)
    written = write_pictures(
        detector, images, picture_paths(images, output), image_ids=ids, score_threshold=_SCORE_THRESHOLD.value
    )
    write_json(detections_file, written.entries)
    print(
        f"{len(images) - len(written.errors)} images, {len(written.entries)} objects in {detections_file}, "
        f"{written.drawn} of them (score at least {_SCORE_THRESHOLD.value:g}) drawn in {output}/*.png"
    )
    for error in written.errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if written.errors else 0


if __name__ == "__main__":
    command_line.run(main, positional="image files and folders of images")
