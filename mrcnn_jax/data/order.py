"""The images that form the batch of each step, a function of (seed, step) alone."""

from collections.abc import Sequence

import numpy as np

# First word of a random stream's key; each use of a seed has its own, so that no two share random numbers.
ORDER_STREAM = 0

# Batches in the period of an order with shares, at least: shares are then exact to 0.001% of the images.
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
    """

    def __init__(
        self,
        canvas_of_image: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        set_of_image: np.ndarray | None = None,
        shares: Sequence[float] = (),
    ) -> None:
        """Prepares the order.

        Args:
            canvas_of_image: The index of each image's canvas, ``[N]``.
            batch_size: Images per batch.
            seed: Seed of the shuffles.
            set_of_image: The index of each image's data set, ``[N]``; every set needs an image.
            shares: The share of the images that each set gets, relative to the others; (): every image is
                seen equally often, whichever set it is in.
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
        # The images of each canvas and set, in their order in the data.
        self._members = {
            (canvas, data_set): np.flatnonzero((canvas_of_image == canvas) & (set_of_image == data_set))
            for canvas, data_set in groups
        }
        self._shuffles: dict[tuple[int, int], tuple[int, np.ndarray]] = {}  # latest pass and its order

        turns = {group: len(images) for group, images in self._members.items()}  # in a period
        if shares:
            each = np.asarray(shares) / np.sum(shares) / np.bincount(set_of_image)
            period = max(len(canvas_of_image), _PERIOD)
            turns = {group: max(1, round(period * n * each[group[1]])) for group, n in turns.items()}
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
            images[chosen] = self._images_at(
                group, periods[chosen] * self._turns[group] + earlier[places[chosen]]
            )
        return canvas, images, step * self.batch_size + rows

    def _images_at(self, group: tuple[int, int], positions: np.ndarray) -> np.ndarray:
        """The images at consecutive positions in the endless sequence of a canvas's and set's passes."""
        members = self._members[group]
        result = np.empty_like(positions)
        for number in range(positions[0] // len(members), positions[-1] // len(members) + 1):
            in_pass = positions // len(members) == number
            result[in_pass] = self._shuffled(group, number)[positions[in_pass] % len(members)]
        return result

    def _shuffled(self, group: tuple[int, int], number: int) -> np.ndarray:
        """The images of a canvas and set in the order of their pass ``number``."""
        latest = self._shuffles.get(group)
        if latest is None or latest[0] != number:
            canvas, data_set = group
            # The first set has the key of a single one, so that a second set leaves its order as it is.
            words = (ORDER_STREAM, canvas, number, *([data_set] if data_set else ()))
            key = np.random.SeedSequence(self.seed, spawn_key=words)
            order = np.random.Generator(np.random.Philox(key)).permutation(self._members[group])
            latest = self._shuffles[group] = (number, order)
        return latest[1]


def _spread(counts: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each key as often as it counts, evenly spread over a sequence, and how often it occurred before."""
    keys = np.concatenate([np.full(count, key) for key, count in counts.items()])
    turns = np.concatenate([np.arange(count) for count in counts.values()])
    totals = np.concatenate([np.full(count, count) for count in counts.values()])
    order = np.argsort((turns + 0.5) / totals, kind="stable")
    return keys[order], turns[order]
