"""Writes the embedded data set: pictures of shapes and stick figures, annotated in COCO's format."""

import sys
import time

from absl import app, flags
from tqdm import tqdm

from mrcnn_jax.data.shapes import make_shapes

_OUTPUT = flags.DEFINE_string("output", "data/shapes", "Folder to write; left alone if it is done.")
_TRAIN = flags.DEFINE_integer("train", 4000, "Number of training images.", lower_bound=1)
_VAL = flags.DEFINE_integer("val", 200, "Number of validation images.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "Side of the square images, pixels.", lower_bound=32)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same files.", lower_bound=0)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    start = time.monotonic()
    total = _TRAIN.value + _VAL.value
    with tqdm(total=total, unit="image", desc=_OUTPUT.value, leave=False, mininterval=1) as bar:
        try:
            made = make_shapes(
                _OUTPUT.value,
                train=_TRAIN.value,
                val=_VAL.value,
                image_size=_IMAGE_SIZE.value,
                seed=_SEED.value,
                progress=lambda done: bar.update(),
            )
        except ValueError as error:
            sys.exit(f"make_shapes: {error}")
    if made:
        seconds = time.monotonic() - start
        print(
            f"{_OUTPUT.value}: {_TRAIN.value} training and {_VAL.value} validation images in {seconds:.0f} s"
        )
    else:
        print(f"{_OUTPUT.value}: the same data set is there already")


if __name__ == "__main__":
    app.run(main)
