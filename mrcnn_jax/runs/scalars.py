"""Reads the curves of a run from its TensorBoard files."""

import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event, SessionLog

_LARGEST_RECORD = 1 << 28  # bytes; a picture has a few million

Curve = list[tuple[int, float]]  # steps and values, in order


def read_scalars(folder: Path) -> dict[str, Curve]:
    """Every scalar in the event files of ``folder`` by its tag, such as "train/loss"; empty without files.

    As in TensorBoard, what an interrupted run wrote about steps that it took again later is dropped. A file
    that a killed process left incomplete is read up to there. Raises ValueError, naming the file, for one
    that is not an event file, and OSError if one cannot be read.
    """
    found: dict[str, dict[int, float]] = {}
    events = [event for path in sorted(folder.glob("*tfevents*")) for event in _read(path)]
    for event in sorted(events, key=lambda event: event.wall_time):
        if event.session_log.status == SessionLog.START:
            for values in found.values():
                for step in [step for step in values if step >= event.step]:
                    del values[step]
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: sorted(values.items()) for tag, values in found.items() if values}


def _read(path: Path) -> Iterator[Event]:
    """The events of a file of TFRecords: a length, a checksum of it, the data, a checksum of these."""
    if not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            if length > _LARGEST_RECORD:
                raise ValueError(f"{path}: not an event file of TensorBoard: a record of {length} bytes")
            data = file.read(length)
            if len(data) < length or len(file.read(4)) < 4:
                return
            try:
                event = Event.FromString(data)
            except DecodeError as error:
                raise ValueError(f"{path}: not an event file of TensorBoard: {error}") from error
            for value in event.summary.value:
                value.ClearField("image")  # pictures of all evaluations would take gigabytes
            yield event
