"""Small videos for tests, encoded by PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LOSSLESS = {"codec": "ffv1", "pix_fmt": "bgr0"}  # in .mkv


def make_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    timestamps: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    audio: str = "",
    rotation: tuple[float, bool, bool] | None = None,
    aspect: Fraction | None = None,
    is_cover: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of ``images [H W 3]``, shown at ``timestamps``, by default one after the other.

    ``audio`` is a codec: a tone of 440 Hz for as long as the pictures. ``rotation`` has degrees counter-
    clockwise and whether it is mirrored left to right and top to bottom, and ``aspect`` is that of a pixel.
    With ``is_cover``, the one image is the cover picture of the sound. Without images there is a second of
    sound alone.
    """
    if timestamps is None:
        timestamps = range(len(images))
    with av.open(str(path), "w") as file:
        if images:
            stream: Any = file.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = time_base
            if is_cover:
                stream.disposition = av.stream.Disposition.attached_pic
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if rotation is not None:
                stream.set_display_rotation(*rotation)
        sound: Any = file.add_stream(audio, rate=48000, bit_rate=64000) if audio else None
        for image, timestamp in zip(images, timestamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = timestamp, time_base
            file.mux(stream.encode(frame))
        if images:
            file.mux(stream.encode(None))
        if audio:
            _add_tone(file, sound, float((timestamps[-1] + 1) * time_base) if images else 1.0)
    return path


def _add_tone(file: Any, stream: Any, seconds: float) -> None:
    count = 960
    for start in range(0, round(seconds * 48000), count):
        wave = np.sin(np.arange(start, start + count) * (2 * np.pi * 440 / 48000)) / 2
        samples = np.repeat(np.round(wave * 2**15).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.pts, frame.sample_rate, frame.time_base = start, 48000, Fraction(1, 48000)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def damage(path: Path, number: int, *, share: float = 1.0) -> None:
    """Overwrites the last ``share`` of the video packet of this number with noise."""
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][number]
        position, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    first = position + round(size * (1 - share))
    data[first : position + size] = np.random.default_rng(0).bytes(position + size - first)
    path.write_bytes(data)


def packets_of(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """The time in seconds and the content of each packet of the first stream of this kind."""
    with av.open(str(path)) as file:
        stream = getattr(file.streams, kind)[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in file.demux(stream) if p.size]
