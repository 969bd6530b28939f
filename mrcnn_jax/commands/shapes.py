"""Writes the synthetic dataset: pictures of shapes and stick figures, annotated in COCO's format.

    mrcnn-jax shapes --output=data/shapes

The same settings give the same files. A folder that already holds them is left unchanged.
"""

import os
import time

from absl import flags

_OUTPUT = flags.DEFINE_string("output", "data/shapes", "folder to write")
_TRAIN = flags.DEFINE_integer("train", 3000, "number of training images", lower_bound=1)
_VAL = flags.DEFINE_integer("val", 200, "number of validation images", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "side of the square images, in pixels", lower_bound=32)
_WORKERS = flags.DEFINE_integer("workers", None, "processes; as many as cores if not given", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "the same seed gives the same files", lower_bound=0)


def main(_: list[str]) -> None:
    from tqdm import tqdm

    from mrcnn_jax.data.shapes import make_shapes

    start = time.monotonic()
    total = _TRAIN.value + _VAL.value
    with tqdm(total=total, unit="image", desc=_OUTPUT.value, leave=False, disable=None) as bar:
        made = make_shapes(
            _OUTPUT.value,
            train=_TRAIN.value,
            val=_VAL.value,
            image_size=_IMAGE_SIZE.value,
            seed=_SEED.value,
            workers=_WORKERS.value or os.cpu_count() or 1,
            progress=lambda done: bar.update(),
        )
    if made:
        seconds = time.monotonic() - start
        print(
            f"{_OUTPUT.value}: {_TRAIN.value} training and {_VAL.value} validation images in {seconds:.0f} s"
        )
    else:
        print(f"{_OUTPUT.value}: already holds the same dataset")
