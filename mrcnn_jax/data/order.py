"""The images that form the batch of each step, a function of (seed, step) alone."""

import math
from collections.abc import Sequence

import numpy as np

from mrcnn_jax.data.passes import Passes, draw_offsets

# Batches in the period of an order with shares or repetitions, at least: the sets' and canvases' shares are
# then exact to 0.001% of the images.
_PERIOD = 100_000


class BatchOrder:
    """Batches whose images share one canvas, with every image seen equally often.

    Each canvas goes through its images in passes, reshuffling them for every pass. A batch that reaches the
    end of a pass continues with the start of the next one, so no image is dropped or repeated to fill it.
    After any step, the numbers of times that two images of a canvas were seen differ by at most one.

    The canvas of a step follows a fixed, periodic sequence of N steps, N being the number of images. In it
    each canvas occurs once per image it has, evenly spread: of C canvases, one with M images has had M / N of
    the batches so far, to within (C - 1) / 2 batches. So an epoch of N / batch_size steps has every image
    once, except that a canvas may be a batch or two ahead or behind, which the next epoch makes up for; and
    N steps have every image exactly ``batch_size`` times. The cost does not grow with the step.

    If data sets have shares, an image of set s occurs as often as (share of s) / (images of s) says. The
    rows of a canvas then alternate between the sets in a fixed, periodic sequence, in which they are evenly
    spread, and each set goes through its images in passes of its own. The period is N steps or ``_PERIOD``,
    if that is more, and the shares are rounded to whole batches of a period.

    If images have repeat factors, each pass has an image that often on average (see ``Passes``), N is the sum
    of the factors, and the period is that of shares.
    """

    def __init__(
        self,
        canvas_of_image: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        set_of_image: np.ndarray | None = None,
        shares: Sequence[float] = (),
        repeats: np.ndarray | None = None,
    ) -> None:
        """Prepares the order.

        Args:
            canvas_of_image: The index of each image's canvas, ``[N]``.
            batch_size: Images per batch.
            seed: Seed of the shuffles.
            set_of_image: The index of each image's data set, ``[N]``; every set needs an image.
            shares: The share of the images that each set gets, relative to the others; (): every image is
                seen equally often, whichever set it is in.
            repeats: The repeat factor of each image, ``[N]``, at least 1; None: no image is repeated.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        if len(canvas_of_image) == 0:
            raise ValueError("there are no images to form batches from")
        self.batch_size = batch_size
        self.seed = seed
        if set_of_image is None or not shares:
            set_of_image = np.zeros(len(canvas_of_image), int)
        count = int(set_of_image.max()) + 1
        groups = [divmod(int(code), count) for code in np.unique(canvas_of_image * count + set_of_image)]
        offsets = None if repeats is None else draw_offsets(seed, len(repeats))
        self._passes = {}
        for canvas, data_set in groups:
            # In their order in the data.
            images = np.flatnonzero((canvas_of_image == canvas) & (set_of_image == data_set))
            self._passes[canvas, data_set] = Passes(
                images,
                seed=seed,
                canvas=canvas,
                data_set=data_set,
                repeats=None if repeats is None else repeats[images],
                offsets=None if offsets is None else offsets[images],
            )
        lengths = {group: passes.mean_length for group, passes in self._passes.items()}
        turns = {group: round(length) for group, length in lengths.items()}  # in a period
        if shares or repeats is not None:
            of_set = np.bincount(set_of_image, repeats)
            each = np.asarray(shares or (1.0,)) / np.sum(shares or (1.0,)) / of_set
            period = max(math.ceil(of_set.sum()), _PERIOD)
            turns = {group: max(1, round(period * n * each[group[1]])) for group, n in lengths.items()}
        self._turns = turns
        # For each canvas: the set of each row in a period, and how often the set has occurred before.
        self._rows = {
            canvas: _spread({group[1]: count for group, count in turns.items() if group[0] == canvas})
            for canvas in dict.fromkeys(canvas for canvas, _ in groups)
        }
        self._canvas_of_step, self._turn_of_step = _spread(
            {canvas: len(sets) for canvas, (sets, _) in self._rows.items()}
        )

    def batch(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The canvas of a step, the indices of its images ``[B]``, and their example numbers ``[B]``.

        An example number is unique to one row of one step and seeds its augmentation.
        """
        period, position = divmod(step, len(self._canvas_of_step))
        canvas = int(self._canvas_of_step[position])
        sets, earlier = self._rows[canvas]
        turn = period * len(sets) + int(self._turn_of_step[position])
        rows = np.arange(self.batch_size, dtype=np.int64)
        periods, places = np.divmod(turn * self.batch_size + rows, len(sets))
        images = np.empty_like(rows)
        for data_set in np.unique(sets[places]).tolist():
            chosen = sets[places] == data_set
            group = canvas, data_set
            images[chosen] = self._passes[group].at(
                periods[chosen] * self._turns[group] + earlier[places[chosen]]
            )
        return canvas, images, step * self.batch_size + rows


def _spread(counts: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each key as often as it counts, evenly spread over a sequence, and how often it occurred before."""
    keys = np.concatenate([np.full(count, key) for key, count in counts.items()])
    turns = np.concatenate([np.arange(count) for count in counts.values()])
    totals = np.concatenate([np.full(count, count) for count in counts.values()])
    order = np.argsort((turns + 0.5) / totals, kind="stable")
    return keys[order], turns[order]
