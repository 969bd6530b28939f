"""Finds objects in images; writes pictures with the objects drawn, and a COCO results list.

    mrcnn-jax predict --workdir=runs/shapes --output=out photo.jpg folder/

Writes out/photo.png for photo.jpg, and out/detections.json, which pycocotools' loadRes takes. Only pictures
of earlier runs are replaced: if another file has the name, the picture is written to photo-2.png.

Images that cannot be read and folders without images are reported and skipped, and the exit code is 1. If no
image can be read at all, nothing is written.
"""

import sys
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup

ARGUMENTS = "image files and folders of images"

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the trained run", required=True)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "directory for the pictures and detections.json; detections.json and pictures of earlier runs are "
    "replaced, other files are kept (photo-2.png is written beside photo.png)",
    required=True,
)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "images per batch", lower_bound=1)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    0.5,
    "draw objects with at least this score; detections.json has all that the model keeps "
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
    from mrcnn_jax.inference.files import DETECTIONS, find_images, picture_paths, read_image_ids

    if not arguments:
        raise ValueError(
            "no images given: name image files or folders, as in: mrcnn-jax predict ... photo.jpg folder/"
        )
    images, errors = find_images(arguments)
    if not images:
        return _report(errors)
    output = Path(_OUTPUT.value)
    detections_file = output / DETECTIONS
    inputs = [Path(path).resolve() for path in (*images, _ANNOTATIONS.value) if path is not None]
    if detections_file.resolve() in inputs:
        raise ValueError(f"{detections_file} is an input and would be overwritten; choose another --output")
    ids = list(range(1, len(images) + 1))
    if _ANNOTATIONS.value is not None:
        ids = read_image_ids(Path(_ANNOTATIONS.value), images)

    setup()
    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.inference.pictures import write_pictures
    from mrcnn_jax.json_files import write_json
    from mrcnn_jax.runs.description import read_run

    config = _override(read_run(_WORKDIR.value).config)
    detector = load(_WORKDIR.value, step=_STEP.value, batch_size=_BATCH_SIZE.value, config=config)
    written = write_pictures(
        detector, images, picture_paths(images, output), image_ids=ids, score_threshold=_SCORE_THRESHOLD.value
    )
    errors += written.errors
    done = len(images) - len(written.errors)
    if done:
        write_json(detections_file, written.entries)
        print(
            f"{done} images, {len(written.entries)} objects in {detections_file}, "
            f"{written.drawn} of them (score at least {_SCORE_THRESHOLD.value:g}) drawn in {output}/*.png"
        )
    return _report(errors)


def _report(errors: list[ValueError]) -> int:
    """Prints the errors; returns the exit code."""
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0
