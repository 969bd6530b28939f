"""The images that form the batch of each step, a function of (seed, step) alone."""

import numpy as np

# First word of a random stream's key; each use of a seed has its own, so that no two share random numbers.
ORDER_STREAM = 0


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
    """

    def __init__(self, canvas_of_image: np.ndarray, *, batch_size: int, seed: int) -> None:
        """Prepares the order; ``canvas_of_image [N]`` has the index of each image's canvas."""
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        if len(canvas_of_image) == 0:
            raise ValueError("there are no images to form batches from")
        self.batch_size = batch_size
        self.seed = seed
        self._members = {int(c): np.flatnonzero(canvas_of_image == c) for c in np.unique(canvas_of_image)}
        self._shuffles: dict[int, tuple[int, np.ndarray]] = {}  # canvas -> (latest pass, its order)

        canvases = np.concatenate([np.full(len(images), c) for c, images in self._members.items()])
        turns = np.concatenate([np.arange(len(images)) for images in self._members.values()])
        counts = np.concatenate([np.full(len(images), len(images)) for images in self._members.values()])
        order = np.argsort((turns + 0.5) / counts, kind="stable")
        self._canvas_of_step, self._turn_of_step = canvases[order], turns[order]

    def batch(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The canvas of a step, the indices of its images ``[B]``, and their example numbers ``[B]``.

        An example number is unique to one row of one step and seeds its augmentation.
        """
        period, position = divmod(step, len(self._canvas_of_step))
        canvas = int(self._canvas_of_step[position])
        turn = period * len(self._members[canvas]) + int(self._turn_of_step[position])
        rows = np.arange(self.batch_size, dtype=np.int64)
        return canvas, self._images_at(canvas, turn * self.batch_size + rows), step * self.batch_size + rows

    def _images_at(self, canvas: int, positions: np.ndarray) -> np.ndarray:
        """The images at consecutive positions in the endless sequence of a canvas's passes."""
        members = self._members[canvas]
        result = np.empty_like(positions)
        for number in range(positions[0] // len(members), positions[-1] // len(members) + 1):
            in_pass = positions // len(members) == number
            result[in_pass] = self._shuffled(canvas, number)[positions[in_pass] % len(members)]
        return result

    def _shuffled(self, canvas: int, number: int) -> np.ndarray:
        """The images of a canvas in the order of its pass ``number``."""
        latest = self._shuffles.get(canvas)
        if latest is None or latest[0] != number:
            key = np.random.SeedSequence(self.seed, spawn_key=(ORDER_STREAM, canvas, number))
            order = np.random.Generator(np.random.Philox(key)).permutation(self._members[canvas])
            latest = self._shuffles[canvas] = (number, order)
        return latest[1]
