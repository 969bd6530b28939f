"""Which images form the batch of a step: a function of (seed, step) alone."""

import numpy as np

# First word of every random stream's key, so that no two uses of one seed share numbers.
ORDER_STREAM = 0


class BatchOrder:
    """Batches in which all images share a canvas, each image being seen equally often.

    Each canvas deals out its images in passes, each pass a new shuffle of all of them. A batch that begins
    with the last images of a pass is filled up with the first of the next: none is dropped, or repeated to
    fill it. So after any step two images of a canvas have come equally often, or one of them once more.

    Which canvas a step takes follows a fixed sequence of as many steps as there are images, in which each
    canvas comes as often as it has images, evenly spread: of C canvases, one with M of the N images has had
    M / N of the batches so far, to within (C - 1) / 2 batches. So an epoch of N / batch_size steps has every
    image once but for what canvases are a batch or two ahead or behind, which the next epoch makes up for,
    and N steps have every image exactly ``batch_size`` times. No cost grows with the step.
    """

    def __init__(self, canvas_of_image: np.ndarray, *, batch_size: int, seed: int) -> None:
        """Prepares the order of images whose canvases have the indices ``canvas_of_image [N]``."""
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        if len(canvas_of_image) == 0:
            raise ValueError("there are no images to form batches of")
        self.batch_size = batch_size
        self.seed = seed
        self._members = {int(c): np.flatnonzero(canvas_of_image == c) for c in np.unique(canvas_of_image)}
        self._shuffles: dict[int, tuple[int, np.ndarray]] = {}  # canvas: its latest pass and order

        canvases = np.concatenate([np.full(len(images), c) for c, images in self._members.items()])
        turns = np.concatenate([np.arange(len(images)) for images in self._members.values()])
        counts = np.concatenate([np.full(len(images), len(images)) for images in self._members.values()])
        when = np.argsort((turns + 0.5) / counts, kind="stable")
        self._canvas_of_step, self._turn_of_step = canvases[when], turns[when]

    def batch(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The canvas of a step, the indices of its images ``[B]``, and their example numbers ``[B]``.

        An example number belongs to one row of one step, and seeds what is drawn for it.
        """
        period, position = divmod(step, len(self._canvas_of_step))
        canvas = int(self._canvas_of_step[position])
        turn = period * len(self._members[canvas]) + int(self._turn_of_step[position])
        rows = np.arange(self.batch_size, dtype=np.int64)
        return canvas, self._deal(canvas, turn * self.batch_size + rows), step * self.batch_size + rows

    def _deal(self, canvas: int, positions: np.ndarray) -> np.ndarray:
        """The images at consecutive positions of a canvas's stream."""
        members = self._members[canvas]
        dealt = np.empty_like(positions)
        for shuffle in range(positions[0] // len(members), positions[-1] // len(members) + 1):
            here = positions // len(members) == shuffle
            dealt[here] = self._shuffle(canvas, shuffle)[positions[here] % len(members)]
        return dealt

    def _shuffle(self, canvas: int, shuffle: int) -> np.ndarray:
        latest = self._shuffles.get(canvas)
        if latest is None or latest[0] != shuffle:
            key = np.random.SeedSequence(self.seed, spawn_key=(ORDER_STREAM, canvas, shuffle))
            order = np.random.Generator(np.random.Philox(key)).permutation(self._members[canvas])
            latest = self._shuffles[canvas] = (shuffle, order)
        return latest[1]
