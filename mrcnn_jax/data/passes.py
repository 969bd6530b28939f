"""Passes over images, each in an order of its own and with some images several times."""

import numpy as np

# First words of random streams' keys; each use of a seed has its own, so that no two share random numbers.
# AUGMENT_STREAM is 1.
ORDER_STREAM = 0
REPEAT_STREAM = 2


def draw_offsets(seed: int, count: int) -> np.ndarray:
    """The random number of each image that ``Passes`` rounds its repetitions with, ``[count]``."""
    key = np.random.SeedSequence(seed, spawn_key=(REPEAT_STREAM,))
    return np.random.Generator(np.random.Philox(key)).random(count)


class Passes:
    """The endless sequence of passes over the images of one canvas and data set.

    Its cost does not grow with the position in it.

    In the first P passes, for any P, an image with the repeat factor r is seen floor(P * r + u) times, where
    u is its offset: P * r times, to within one.
    """

    def __init__(
        self,
        images: np.ndarray,
        *,
        seed: int,
        canvas: int,
        data_set: int = 0,
        repeats: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ) -> None:
        """Prepares the passes.

        Args:
            images: The indices of M images, ``[M]``.
            seed: Seed of the shuffles.
            canvas: The canvas, for the shuffles' random streams, as is ...
            data_set: ... the data set.
            repeats: How often each image is in a pass, on average, ``[M]``, at least 1; None: once.
            offsets: The images' ``draw_offsets``, ``[M]``; None: 0.
        """
        self._images, self._seed, self._canvas, self._data_set = images, seed, canvas, data_set
        self._repeats = np.ones(len(images)) if repeats is None else repeats
        self._offsets = np.zeros(len(images)) if offsets is None else offsets
        self.mean_length = float(self._repeats.sum())
        self._latest = 0, np.zeros(0, int)  # where the latest pass begins, and its images

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The images at ascending positions, consecutive or nearly so."""
        result = np.empty_like(positions)
        done = 0
        while done < len(positions):
            begin, images = self._pass_at(int(positions[done]))
            places = positions[done:] - begin
            places = places[places < len(images)]
            result[done : done + len(places)] = images[places]
            done += len(places)
        return result

    def _pass_at(self, position: int) -> tuple[int, np.ndarray]:
        """Where the pass at a position begins, and its images in order."""
        begin, images = self._latest
        if not begin <= position < begin + len(images):
            number = int(position / self.mean_length)  # to within one, as offsets are below 1
            while self._seen(number).sum() > position:
                number -= 1
            while self._seen(number + 1).sum() <= position:
                number += 1
            self._latest = begin, images = int(self._seen(number).sum()), self._shuffled(number)
        return begin, images

    def _seen(self, number: int) -> np.ndarray:
        """How often each image is in the first ``number`` passes, int64 ``[M]``."""
        return np.floor(number * self._repeats + self._offsets).astype(np.int64)

    def _shuffled(self, number: int) -> np.ndarray:
        images = np.repeat(self._images, self._seen(number + 1) - self._seen(number))
        # The first set has the key of a single one, so that a second set leaves its order as it is.
        words = (ORDER_STREAM, self._canvas, number, *([self._data_set] if self._data_set else ()))
        key = np.random.SeedSequence(self._seed, spawn_key=words)
        return np.random.Generator(np.random.Philox(key)).permutation(images)
