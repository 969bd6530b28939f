"""The folder of a job: which images, cut into shards, with which model, and which shards are done.

    manifest.json           what the results depend on; it is written last, and makes the folder a job's
    images.jsonl            the entries (``inputs``) of all images, one a line
    results/part-00012.parquet  the rows of a shard, or .jsonl
    done/part-00012.json    written after it: the shard's counts, and its images that failed
    begun/part-00012.json   how often the shard was begun, what died, and which images of its file are nearly
                            black (``worker``); removed when it is done
    failed.jsonl            the images that failed, of all shards

A shard whose file in ``done`` exists is finished. Any other may be worked on by several processes at once,
some of them left by a driver that was killed: all write the same, and files appear whole.
"""

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mrcnn_jax.inference.partial_results import describe_differences
from mrcnn_jax.json_files import dumps, read_json, write_json
from mrcnn_jax.many_images.inputs import Entry, name_of
from mrcnn_jax.many_images.part_files import UNFINISHED, appearing, read_rows
from mrcnn_jax.many_images.rows import Row

_MANIFEST, _IMAGES, _FAILED = "manifest.json", "images.jsonl", "failed.jsonl"
_RESULTS, _DONE, _BEGUN = "results", "done", "begun"
_LARGEST_SHARD = 1000  # images, unless --shard_size says so
_SHARDS_PER_ACTOR = 8  # at least, so that none waits long for the last one
_ADVICE = "choose another --output, or use the same settings to go on with it"


class Shard(NamedTuple):
    """Consecutive images of a job."""

    number: int
    first: int  # index of its first image, from 0
    size: int  # number of images
    offset: int  # of its first line in the list of images, in bytes


class Done(NamedTuple):
    """What is known of a finished shard."""

    images: int
    objects: int
    failed: list[dict[str, Any]]  # image_id, image and error of each image that failed
    nearly_black: list[str]


@dataclass(frozen=True)
class Job:
    """A job in its folder, which all machines must see under the same path."""

    folder: Path
    format: str  # of part_files.FORMATS
    base: Path  # at which relative names begin
    column: str | None  # of Parquet files
    images: int
    shard_size: int

    def part(self, shard: int) -> Path:
        """The file of a shard's rows."""
        return self.folder / _RESULTS / f"part-{shard:05d}.{self.format}"

    def begun(self, shard: int) -> Path:
        """The file that says how often a shard was begun."""
        return self.folder / _BEGUN / f"part-{shard:05d}.json"

    def shards(self) -> Iterator[Shard]:
        """All shards, in order."""
        offset, size = 0, self.shard_size
        with (self.folder / _IMAGES).open("rb") as lines:
            for number in range(math.ceil(self.images / size)):
                lengths = [len(line) for line in itertools.islice(lines, size)]
                yield Shard(number, number * size, len(lengths), offset)
                offset += sum(lengths)

    def unfinished(self) -> list[Shard]:
        """The shards that are not done."""
        done = {path.name for path in (self.folder / _DONE).glob("part-*.json")}
        return [shard for shard in self.shards() if self._done(shard.number).name not in done]

    def entries(self, shard: Shard) -> list[Entry]:
        """The entries of a shard's images."""
        with (self.folder / _IMAGES).open("rb") as lines:
            lines.seek(shard.offset)
            return [json.loads(line) for line in itertools.islice(lines, shard.size)]

    def finish(self, shard: int, done: Done) -> None:
        """Marks a shard as done, whose rows are written."""
        with appearing(self._done(shard)) as file:
            file.write_text(dumps(done._asdict()) + "\n", encoding="utf-8")
        self.begun(shard).unlink(missing_ok=True)

    def finished(self) -> Iterator[tuple[int, Done]]:
        """Yields the numbers of the shards that are done, in order, and what is known of each."""
        for number in range(math.ceil(self.images / self.shard_size)):
            if self._done(number).exists():
                yield number, Done(**read_json(self._done(number)))

    def nearly_black(self, shard: int) -> list[str]:
        """The nearly black images in the file of a shard, done or not, so far as they are known."""
        for path in (self.begun(shard), self._done(shard)):  # the first is removed when the second is there
            with contextlib.suppress(FileNotFoundError):
                return read_json(path).get("nearly_black", [])
        return []

    def forget_failed(self) -> int:
        """Marks the shards with images that failed as not done; returns the number of these images.

        What was found in their other images is kept: a worker takes it from the shard's file.
        """
        count = 0
        for number, done in self.finished():
            if done.failed:
                count += len(done.failed)
                with appearing(self.begun(number)) as file:
                    file.write_text(dumps({"nearly_black": done.nearly_black}), encoding="utf-8")
                self._done(number).unlink()
        return count

    def list_failed(self) -> tuple[Path, int]:
        """Writes the list of all images that failed so far; returns its path and their number."""
        path, count = self.folder / _FAILED, 0
        with appearing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            for _, done in self.finished():
                for failure in done.failed:
                    file.write(dumps(failure) + "\n")
                    count += 1
        return path, count

    def rows(self) -> Iterator[Row]:
        """Yields the rows of all shards that are done, in the order of the images."""
        for number, _ in self.finished():
            yield from read_rows(self.part(number))

    def _done(self, shard: int) -> Path:
        return self.folder / _DONE / f"part-{shard:05d}.json"


def begin_job(
    folder: Path,
    entries: Iterable[Entry],
    *,
    format: str,
    base: Path,
    column: str | None,
    shard_size: int | None,
    batch_size: int,
    actors: int,
    made_with: Mapping[str, Any],
) -> Job:
    """The job in ``folder``, which is made unless it is there.

    Args:
        folder: where the results go; it must be absent, empty, or of a job with the same images and settings.
        entries: of the images. Only one is in memory at a time.
        format: of the results, one of ``part_files.FORMATS``.
        base: the folder at which relative names begin.
        column: of Parquet files.
        shard_size: images of a shard; None chooses it for ``actors``, or that of the job that is there.
        batch_size: which a chosen ``shard_size`` is a multiple of.
        actors: how many there will be.
        made_with: JSON-serialisable values on which the results depend, by the names of flags.

    Raises ValueError, naming what differs, if the folder is that of another job, or has other files.
    """
    settings = {"--format": format, "--column": column, "folder of the images": str(base)} | dict(made_with)
    if (folder / _MANIFEST).exists():
        manifest = read_json(folder / _MANIFEST)
        here = settings | ({} if shard_size is None else {"--shard_size": shard_size})
        there = manifest["made_with"] | {"--shard_size": manifest["shard_size"]}
        there = {name: value for name, value in there.items() if name != "--shard_size" or shard_size}
        if lines := describe_differences(here, there):
            raise ValueError(f"{folder} has the results of a job with other settings:{lines}\n{_ADVICE}")
        _check_same_images(folder, entries, manifest)
        return Job(folder, format, base, column, manifest["images"], manifest["shard_size"])
    _check_empty(folder)
    for name in ("", _RESULTS, _DONE, _BEGUN):
        (folder / name).mkdir(parents=True, exist_ok=True)
    count, digest = 0, hashlib.sha256()
    with appearing(folder / _IMAGES) as unfinished, unfinished.open("wb") as file:
        for entry in entries:
            line = _line(entry)
            file.write(line)
            digest.update(line)
            count += 1
    if shard_size is None:
        share = min(_LARGEST_SHARD, count / (actors * _SHARDS_PER_ACTOR))
        shard_size = batch_size * max(1, math.ceil(share / batch_size))
    manifest = {
        "images": count,
        "images_sha256": digest.hexdigest(),
        "shard_size": shard_size,
        "made_with": settings,
    }
    write_json(folder / _MANIFEST, manifest)
    return Job(folder, format, base, column, count, shard_size)


def remove_unfinished(job: Job, *, before: float = math.inf) -> None:
    """Removes what killed processes have left of the files that they were writing.

    Those that were last written ``before`` a time, in seconds since 1970: processes of another driver may
    still write newer ones.
    """
    for name in ("", _RESULTS, _DONE, _BEGUN):
        for path in (job.folder / name).glob(f".*{UNFINISHED}"):
            with contextlib.suppress(FileNotFoundError):  # it was renamed just now
                if path.stat().st_mtime < before:
                    path.unlink()


def _check_same_images(folder: Path, entries: Iterable[Entry], manifest: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the first image that differs, unless these are the job's images."""
    path, digest = folder / _IMAGES, hashlib.sha256()
    with path.open("rb") as lines:
        for number, (here, there) in enumerate(itertools.zip_longest(map(_line, entries), lines), start=1):
            if here != there:
                names = [name_of(json.loads(line)) if line else "none" for line in (here, there)]
                raise ValueError(
                    f"{folder} has the results of a job with other images: image {number} is {names[0]} "
                    f"here, {names[1]} there, of {manifest['images']}\n{_ADVICE}"
                )
            digest.update(there)
    if digest.hexdigest() != manifest["images_sha256"]:
        raise ValueError(f"{path}: has changed since the job was begun; {_ADVICE}")


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; --output must be a folder")
    if not folder.is_dir():
        return
    # Of a process that was killed before it wrote the manifest.
    own = {_IMAGES, _RESULTS, _DONE, _BEGUN}
    others = [path for path in folder.iterdir() if path.name not in own and path.suffix != UNFINISHED]
    if others or any((folder / _DONE).glob("*")):
        raise ValueError(
            f"{folder}: has files, such as {(others or [folder / _DONE])[0].name}, but is not the folder of "
            "a job; choose another --output"
        )


def _line(entry: Entry) -> bytes:
    return dumps(entry, exact=True).encode() + b"\n"
