"""Keeps the proposals of a data set on disk until all images are done: a killed run can go on.

They are in a folder beside the file to write, ``FILE.npz.partial``: ``made_with.json`` says what they were
made with, and each process appends to a file of records of its own, ``0.records`` and so on.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mrcnn_jax.inference.partial_results import describe_differences
from mrcnn_jax.json_files import dumps, read_json, write_json
from mrcnn_jax.proposal_records import Record, RecordWriter, find_records, write_npz
from mrcnn_jax.proposals import ImageProposals

_MADE_WITH = "made_with.json"
_RECORDS = "*.records"
_JOINED = "joined.*.npz"


def partial_folder(output: Path) -> Path:
    """The folder that has the proposals for the file ``output`` until this is written."""
    return output.with_name(f"{output.name}.partial")


def begin_proposals(output: Path, made_with: Mapping[str, Any]) -> None:
    """Creates the folder for the proposals, unless an interrupted run has, and notes what they are made with.

    Raises ValueError if it has proposals that were made with other values, because they would be lost.
    """
    folder = partial_folder(output)
    path = folder / _MADE_WITH
    if any(folder.glob(_RECORDS)):
        there = read_json(path)
        if lines := describe_differences(made_with, there):
            raise ValueError(
                f"{folder} has the proposals of an interrupted run with other settings:{lines}\n"
                "use those settings to go on with it, or choose another --output, or remove the folder to "
                "start anew"
            )
    else:
        folder.mkdir(exist_ok=True)
        write_json(path, dict(made_with))


class PartialProposals:
    """The proposals of images in the folder of ``begin_proposals``.

    Args:
        output: The file to write in the end.
        process: The index of this process, whose file is appended to.

    Raises BlockingIOError if another run is writing that file, until it leaves the block.
    """

    def __init__(self, output: Path, *, process: int) -> None:
        self.output, self.folder = output, partial_folder(output)
        self._writer = RecordWriter(self.folder / f"{process}.records")
        self._records = self._find()

    def __enter__(self) -> "PartialProposals":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def is_done(self, image_id: int) -> bool:
        """Whether the image's proposals are on disk, by whichever process so far as this one knows."""
        return image_id in self._records

    def append(self, image_id: int, proposals: ImageProposals) -> None:
        """Writes the proposals of an image: killing the process after this does not lose them."""
        self._records[image_id] = self._writer.append(image_id, proposals.boxes, proposals.objectness)

    def missing(self, ids: Sequence[int]) -> int:
        """How many images of ``ids`` are not done, by what all processes have written by now."""
        self._records = self._find()
        return sum(not self.is_done(image_id) for image_id in ids)

    def write(self, ids: Sequence[int]) -> int:
        """Writes ``output`` with the images in the order of ``ids`` and removes the folder.

        Returns the number of proposals. All processes must be done. Raises FileExistsError if somebody else
        has written ``output``.
        """
        made_with = dumps(read_json(self.folder / _MADE_WITH))
        joined = self.folder / _JOINED.replace("*", str(os.getpid()))
        count = write_npz(joined, [self._records[image_id] for image_id in ids], made_with=made_with)
        if self.output.exists():
            raise FileExistsError(f"{self.output}: already exists; remove it, or choose another file")
        joined.replace(self.output)
        remove_partial(self.output)
        return count

    def _find(self) -> dict[int, Record]:
        paths = sorted(self.folder.glob(_RECORDS))
        return {record.image_id: record for path in paths for record in find_records(path)}


def remove_partial(output: Path) -> None:
    """Removes what an interrupted run has left for ``output``, if anything."""
    folder = partial_folder(output)
    for path in (*folder.glob(_RECORDS), *folder.glob(_JOINED), folder / _MADE_WITH):
        path.unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
