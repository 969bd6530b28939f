"""Finds objects in large images, tile by tile."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mrcnn_jax.image_windows import open_windows
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.results import Result
from mrcnn_jax.inference.tile_merging import merge_tiles, tiles_of


class TiledDetector:
    """A detector whose images are cut into tiles, which overlap, and which need not fit in memory.

    Args:
        detector: what finds objects in a tile. It resizes tiles by its config, as images of their size.
        tile: the side of the square tiles, in pixels.
        overlap: pixels by which neighbours overlap at least. An object of up to this size lies in one tile
            whole, but for a border of a 64th of the tile; larger ones may be joined from pieces
            (``tile_merging``).

    Raises ValueError unless the overlap is from 0 to half the tile.
    """

    def __init__(self, detector: Detector, *, tile: int, overlap: int) -> None:
        tiles_of((1, 1), tile=tile, overlap=overlap)
        self._detector, self._tile, self._overlap = detector, tile, overlap

    def __call__(self, path: str | Path) -> Result:
        """The objects in an image file. Raises ValueError, naming it, if it cannot be read."""
        path = Path(path)
        with open_windows(path, self._detector.pixels) as windows:
            tiles = tiles_of(windows.size, tile=self._tile, overlap=self._overlap)
            results = self._detector.stream(partial(windows.read, *tile) for tile in tiles)
            return merge_tiles(list(zip(tiles, results, strict=True)), windows.size, path=path)

    def attempt(
        self, sources: Iterable[Path], *, inspect: Callable[[int, np.ndarray], None] | None = None
    ) -> Iterator[Result | ValueError]:
        """The results of image files, with the error in place of that of a file that cannot be read.

        Images are not inspected: a dark tile is no dark image.
        """
        for path in sources:
            try:
                yield self(path)
            except ValueError as error:
                yield error

    def read(self, path: Path) -> np.ndarray:
        """The pixels of an image file; raises ValueError if it cannot be read."""
        with open_windows(path, self._detector.pixels) as windows:
            return windows.read(0, 0, *windows.size)
