"""Finds the objects in the images of a shard, and writes the shard's file."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mrcnn_jax.image_size import header_size
from mrcnn_jax.images import decode_image, is_nearly_black
from mrcnn_jax.inference.results import Result
from mrcnn_jax.json_files import read_json
from mrcnn_jax.many_images import rows
from mrcnn_jax.many_images.fetch import fetch
from mrcnn_jax.many_images.inputs import Entry, ParquetBytes, name_of
from mrcnn_jax.many_images.job import Done, Job, Shard
from mrcnn_jax.many_images.part_files import appearing, read_rows, write_rows
from mrcnn_jax.many_images.rows import Row
from mrcnn_jax.pixels import PixelFormat

# A worker may be killed for reasons of its own, or by an image: one that takes all memory, say. A shard that
# was begun this often is done one image at a time, and an image that saw as many workers die has failed.
_BEGUN_BEFORE_CARE = 3
_DEATHS = 2


_Inspect = Callable[[int, np.ndarray], None]


class Finder(Protocol):
    """What finds objects in images: a ``Detector``."""

    @property
    def pixels(self) -> PixelFormat: ...

    def attempt(
        self,
        sources: Iterable[Callable[[], np.ndarray]],
        *,
        inspect: _Inspect | None = None,
    ) -> Iterator[Result | ValueError]: ...


@dataclass
class _Attempts:
    """How often a shard was begun, at which images workers died, and what else its file does not say."""

    path: Path
    begun: int = 0
    at: int | None = None  # index of the image that is being worked on, if one at a time is
    deaths: dict[str, int] = field(default_factory=dict)  # by index of the image
    nearly_black: list[str] = field(default_factory=list)  # names of such images in the shard's file

    @classmethod
    def read(cls, path: Path) -> "_Attempts":
        """Those so far, with this one."""
        attempts = cls(path, **read_json(path)) if path.exists() else cls(path)
        attempts.begun += 1
        if attempts.at is not None:
            attempts.deaths[str(attempts.at)] = attempts.deaths.get(str(attempts.at), 0) + 1
            attempts.at = None
        attempts.write()
        return attempts

    def write(self) -> None:
        with appearing(self.path) as file:
            fields = {name: value for name, value in vars(self).items() if name != "path"}
            file.write_text(json.dumps(fields))


class Worker:
    """Finds objects in shards of a job, one after another.

    Args:
        job: whose folder this machine sees.
        load: makes the ``Finder``; called once.
        score_threshold: objects under this score are left out.
        max_pixels: images with more pixels fail.
    """

    def __init__(
        self, job: Job, load: Callable[[], Finder], *, score_threshold: float, max_pixels: int
    ) -> None:
        self._job, self._finder = job, load()
        self._score_threshold, self._max_pixels = score_threshold, max_pixels
        self._tables = ParquetBytes(job.base, job.column)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Works on the shards in a batch of Ray Data, by ``Shard``'s fields; returns a row for each."""
        shards = [Shard(*map(int, values)) for values in zip(*map(batch.get, Shard._fields), strict=True)]
        summaries = [self.process(shard) for shard in shards]
        return {name: np.array([summary[name] for summary in summaries]) for name in summaries[0]}

    def process(self, shard: Shard) -> dict[str, Any]:
        """Finds the objects in a shard's images, writes its file, and marks it as done.

        If the file is there, only the images that failed are tried again. Returns numbers for people.
        """
        begin = time.monotonic()
        part = self._job.part(shard.number)
        todo = list(range(shard.size))
        if part.exists():
            has_failed = [row["error"] is not None for row in read_rows(part, ("error",))]
            todo = [index for index in todo if has_failed[index]]
        entries = self._job.entries(shard)
        names = [rows.as_text(name_of(entry)) for entry in entries]
        before = set(self._job.nearly_black(shard.number))
        black = {index for index in set(range(shard.size)) - set(todo) if names[index] in before}
        attempts = _Attempts.read(self._job.begun(shard.number))
        tally = _Tally()

        def all_rows() -> Iterator[Row]:
            found = self._find(shard, entries, todo, black, attempts)
            yield from tally.count(found if len(todo) == shard.size else _merged(part, todo, found))
            attempts.nearly_black = [names[index] for index in sorted(black)]
            if black:  # noted before the file is there, after which another worker skips these images
                attempts.write()

        write_rows(part, all_rows())
        done = Done(shard.size, tally.objects, tally.failed, attempts.nearly_black)
        self._job.finish(shard.number, done)
        return {
            "shard": shard.number,
            "images": shard.size,
            "failed": len(tally.failed),
            "seconds": time.monotonic() - begin,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }

    def _find(
        self,
        shard: Shard,
        entries: Sequence[Entry],
        todo: Sequence[int],
        black: set[int],
        attempts: _Attempts,
    ) -> Iterator[Row]:
        """Yields the rows of the images at the indices ``todo``, and adds those nearly black to ``black``."""
        find = self._find_one_by_one if attempts.begun > _BEGUN_BEFORE_CARE else self._find_together

        def inspect(index: int, pixels: np.ndarray) -> None:
            if is_nearly_black(pixels):
                black.add(index)

        outcomes = find([entries[index] for index in todo], todo, inspect, attempts)
        for index, outcome in zip(todo, outcomes, strict=True):
            image_id, name = shard.first + index + 1, name_of(entries[index])
            if isinstance(outcome, ValueError):
                yield rows.failed(image_id, name, str(outcome))
            else:
                yield rows.found(image_id, name, outcome.above(self._score_threshold))

    def _find_together(
        self, entries: Sequence[Entry], indices: Sequence[int], inspect: _Inspect, _: _Attempts
    ) -> Iterator[Result | ValueError]:
        sources = (partial(self._read, entry) for entry in entries)
        yield from self._finder.attempt(sources, inspect=lambda row, pixels: inspect(indices[row], pixels))

    def _find_one_by_one(
        self, entries: Sequence[Entry], indices: Sequence[int], inspect: _Inspect, attempts: _Attempts
    ) -> Iterator[Result | ValueError]:
        for index, entry in zip(indices, entries, strict=True):
            if attempts.deaths.get(str(index), 0) >= _DEATHS:
                place = self._place(entry)
                yield ValueError(f"{place}: the process that worked on it died, {_DEATHS} times")
                continue
            attempts.at = index
            attempts.write()
            yield from self._find_together([entry], [index], inspect, attempts)

    def _read(self, entry: Entry) -> np.ndarray:
        """The pixels of an image; raises ValueError, naming it, if it cannot be read or has too many."""
        place = self._place(entry)
        data = fetch(entry, self._job.base) if isinstance(entry, str) else self._tables.read(*entry)
        height, width = header_size(data, name=place)
        if height * width > self._max_pixels:
            raise ValueError(
                f"{place}: has {width} x {height} pixels; must have at most {self._max_pixels} (--max_pixels)"
            )
        return decode_image(data, self._finder.pixels, name=place)

    def _place(self, entry: Entry) -> str:
        """What messages call an image: its path or URI."""
        name = name_of(entry)
        return name if "://" in name else str(self._job.base / name)


class _Tally:
    """Counts the objects in the rows that it passes on, and lists the images that failed."""

    def __init__(self) -> None:
        self.objects = 0
        self.failed: list[dict[str, Any]] = []

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if row["error"] is None:
                self.objects += len(row["objects"])
            else:
                self.failed.append({name: row[name] for name in ("image_id", "image", "error")})
            yield row


def _merged(part: Path, todo: Sequence[int], found: Iterator[Row]) -> Iterator[Row]:
    """The rows of a file, with those that are ``found`` at the indices ``todo``."""
    replaced = set(todo)
    for index, row in enumerate(read_rows(part)):
        yield next(found) if index in replaced else row
