"""What is drawn at random for a training example: a function of (seed, example number) alone."""

from dataclasses import dataclass

import numpy as np

AUGMENT_STREAM = 1  # beside the order's stream 0


@dataclass(frozen=True)
class Augmentation:
    """The changes made to one example."""

    short_side: int  # pixels
    flip: bool  # mirror left and right


def draw_augmentation(seed: int, example: int, *, short_sides: tuple[int, ...], flip: bool) -> Augmentation:
    """The changes to the example of this number.

    One of ``short_sides``, each as likely, and a mirror half of the time if ``flip``.
    """
    key = np.random.SeedSequence(seed, spawn_key=(AUGMENT_STREAM, example))
    generator = np.random.Generator(np.random.Philox(key))
    side, coin = generator.integers(len(short_sides)), generator.random()
    return Augmentation(short_side=short_sides[side], flip=flip and bool(coin < 0.5))
