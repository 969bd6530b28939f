"""The share of padding in batches, by set of canvases, and in Detectron2's and torchvision's own batches.

    python tests/parity/padding.py --annotations=COCO/annotations/instances_train2017.json

Only the image sizes in the file matter; every image counts equally, with or without objects. The columns
are for Detectron2's six short sides and torchvision's one. Those systems batch images of similar aspect
ratio, and pad the images on one GPU to their largest height and width, rounded up to a multiple of 32.
"""

import argparse
import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mrcnn_jax.config import DataConfig, presets
from mrcnn_jax.data.summary import expected_canvases
from mrcnn_jax.images import Size, resized_shape
from mrcnn_jax.json_files import read_json

TWO = ((800, 1344), (1344, 800))
SETS: tuple[tuple[Size, ...], ...] = (
    ((1344, 1344),),
    TWO,
    (*TWO, (1088, 1088)),
    (*TWO, (800, 1088)),
    (*TWO, (800, 1088), (1088, 800)),
    (*TWO, (800, 1088), (800, 1216)),
    (*TWO, (800, 1088), (1088, 800), (800, 1216)),
    (*TWO, (800, 1088), (1088, 800), (800, 1216), (1216, 800)),
)
CONFIGS = (presets.detectron2().data, presets.torchvision().data)
UNIT = 32  # pixels: canvases and the peers' batches are multiples of it
# Edges between groups of width / height: wider than high or not (Detectron2's AspectRatioGroupedDataset), and
# the eight of torchvision's reference training (--aspect-ratio-group-factor=3).
GROUPS = {"Detectron2": np.array([np.nextafter(1, 2)]), "torchvision": 2 ** np.linspace(-1, 1, 7)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--annotations", required=True, type=Path, help="instances_*.json")
    entries = read_json(parser.parse_args().annotations)["images"]
    sizes = np.array([(entry["height"], entry["width"]) for entry in entries])
    print(f"{len(sizes)} images\n\n| canvases | Detectron2 | torchvision |\n|---|---|---|")
    for canvases in SETS:
        shares = (padding(sizes, replace(config, canvases=canvases)) for config in CONFIGS)
        print_row(", ".join(f"{height}x{width}" for height, width in canvases), shares)
    print_row("the default, one short side a step", (padding_by_side(sizes, config) for config in CONFIGS))
    for batch_size in (2, 16):
        for system, edges in GROUPS.items():
            shares = (peer_padding(sizes, config, edges=edges, batch_size=batch_size) for config in CONFIGS)
            print_row(f"{system}'s way, {batch_size} images", shares)


def print_row(name: str, shares: Iterable[float]) -> None:
    print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


def padding(sizes: np.ndarray, config: DataConfig) -> float:
    """The expected share of padding in our batches of images of ``sizes`` ``[N 2]``."""
    return expected_canvases(sizes, config)[1]


def padding_by_side(sizes: np.ndarray, config: DataConfig) -> float:
    """Like ``padding``, but every short side has its own canvases, those of ``config`` scaled down."""
    covered = total = 0.0
    for side in config.train_short_sides:
        factor = side / max(config.train_short_sides)
        # The long side has the same limit at every short side.
        canvases = tuple(
            tuple(length if length > config.long_side else round_up(length * factor) for length in canvas)
            for canvas in config.canvases
        )
        changed = replace(config, train_short_sides=(side,), canvases=canvases)
        shares, padded = expected_canvases(sizes, changed)
        pixels = sum(share * height * width for (height, width), share in shares.items())
        covered += (1 - padded) * pixels
        total += pixels
    return 1 - covered / total


def peer_padding(sizes: np.ndarray, config: DataConfig, *, edges: np.ndarray, batch_size: int) -> float:
    """The share of padding if each batch takes the next images of a group, in random order.

    ``edges`` are the ratios width / height between the groups.
    """
    rng = np.random.default_rng(0)
    shapes, which = np.unique(sizes, axis=0, return_inverse=True)
    sides = config.train_short_sides
    limits = {"long_side": config.long_side, "rule": config.resize}
    resized = np.array(
        [[resized_shape(*shape, short_side=side, **limits) for side in sides] for shape in shapes.tolist()]
    )  # [shapes sides 2]
    group = np.digitize(sizes[:, 1] / sizes[:, 0], edges)
    covered = total = 0
    for _, number in itertools.product(range(4), np.unique(group)):  # averages four passes
        images = rng.permutation(np.flatnonzero(group == number))
        batches = images[: len(images) // batch_size * batch_size].reshape(-1, batch_size)
        shown = resized[which[batches], rng.integers(len(sides), size=batches.shape)]
        covered += shown.prod(axis=2).sum()
        total += batch_size * round_up(shown.max(axis=1)).prod(axis=1).sum()
    return float(1 - covered / total)


def round_up(pixels: ArrayLike) -> np.ndarray:
    return np.ceil(np.divide(pixels, UNIT)).astype(int) * UNIT


if __name__ == "__main__":
    main()
