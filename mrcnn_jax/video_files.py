"""Video files, by PyAV: their frames in order as upright RGB pixels, and H.264 videos with another's sound.

Files may come from strangers: of FFmpeg's formats only those are read that are one file by themselves.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mrcnn_jax.image_formats import suffixes

WRITTEN = (".mp4", ".mov", ".mkv")  # the formats that are written; all take H.264 and exact timestamps

# FFmpeg's names. Left out are playlists and lists of files (hls, dash, concat), which open others, and those
# of images.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,gif"
_LISTED_PROBLEMS = 20  # the first ones are kept in words: a damaged video may have any number
_ASPECTS = (Fraction(1, 4), Fraction(4))  # of pixels; others are taken for a damaged header
# x264's "veryfast" takes a fourth of the default's time; a lower crf (its default is 23) keeps thin outlines.
_ENCODER = {"preset": "veryfast", "crf": "20"}
# What was written can be read up to the last seconds even if the process is killed, and is an ordinary file
# once it is closed. Without "delay_moov", sound that begins before the pictures would be moved.
_FRAGMENTS = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}  # microseconds
_MUXER = {".mp4": _FRAGMENTS, ".mov": _FRAGMENTS, ".mkv": {"cluster_time_limit": "1000"}}  # milliseconds
_AT_ONCE = {"flush_packets": "1"}  # nothing waits in memory for a full buffer
_MICROSECONDS = 10**6  # in a second: the unit of FFmpeg's times of a whole file
_BT709 = 1  # FFmpeg's number for the colours of HD video: matrix, primaries and transfer


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame, upright and with square pixels."""

    index: int  # from 0, among the frames that can be decoded
    time: float  # seconds from the beginning of the file at which it is shown
    timestamp: int  # the same in units of the video's time base
    duration: int  # in the same units; 0 if unknown
    image: UInt8[np.ndarray, "height width 3"]  # all frames of a video have one size
    is_damaged: bool  # whether the decoder had to conceal missing parts


class Video:
    """A video that was opened by ``open_video``.

    Attributes:
        path: the file.
        frame_rate: frames per second on average; 30 if the file does not say.
        time_base: seconds of one unit of the timestamps.
        expected_frames: about how many frames there are; None if the file does not say.
        lost: places at which frames could not be decoded, of those that were read so far.
        damaged: frames of which the decoder concealed missing parts.
        problems: the first of both, in words, with the time of each.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path = path
        self.frame_rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(30)
        self.time_base: Fraction = stream.time_base
        seconds = Fraction(container.duration or 0, _MICROSECONDS)
        self.expected_frames: int | None = stream.frames or round(seconds * self.frame_rate) or None
        self.lost = self.damaged = 0
        self.problems: list[str] = []
        self._container, self._stream = container, stream
        self._step = max(round(1 / (self.frame_rate * self.time_base)), 1)  # from frame to frame
        self._first: Any = None  # the frame that decides the size of all, and how they are turned

    def frames(self) -> Generator[VideoFrame, None, None]:
        """Yields the frames in the order in which they are shown; to be called once.

        What cannot be decoded is left out, counted and named in ``problems``. Timestamps are made to
        increase. A frame of another size than the first is scaled to that, and all are turned as it is.
        """
        clock = _Clock(_start_of(self._container, self.time_base), self.time_base)
        for index, frame in enumerate(self._decoded()):
            if self._first is None:
                self._first = frame
            timestamp = clock.tell(
                frame.dts if frame.pts is None else frame.pts, frame.duration or self._step
            )
            time = float(timestamp * self.time_base)
            if frame.is_corrupt:
                self.damaged += 1
                self._note(f"frame {index} at {time:.3f} s is damaged")
            image = self._pixels(frame)
            yield VideoFrame(index, time, timestamp, frame.duration or 0, image, frame.is_corrupt)

    def _decoded(self) -> Iterator[Any]:
        av = _pyav()
        packets = self._container.demux(self._stream)
        clock = _Clock(_start_of(self._container, self.time_base), self.time_base)
        packet, at = None, 0.0
        while True:
            try:
                packet = next(packets, None)
                if packet is not None and packet.dts is not None:  # in whose order packets come
                    delay = 0 if packet.pts is None else packet.pts - packet.dts
                    time = clock.tell(packet.dts, packet.duration or self._step) + delay
                    at = float(time * self.time_base)
            except av.error.FFmpegError as error:
                self._lose(f"nothing can be read after {at:.3f} s: {error.strerror}")
                packet = None
            try:
                yield from self._stream.decode(packet)
            except av.error.EOFError:  # the decoder had given all of its frames before
                pass
            except av.error.FFmpegError as error:
                self._lose(f"at {at:.3f} s: cannot be decoded: {error.strerror}")
            if packet is None:
                return

    def _lose(self, problem: str) -> None:
        self.lost += 1
        self._note(problem)

    def _note(self, problem: str) -> None:
        if len(self.problems) < _LISTED_PROBLEMS:
            self.problems.append(problem)

    def _pixels(self, frame: Any) -> np.ndarray:
        width, height = self._first.width, self._first.height
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if _ASPECTS[0] <= aspect <= _ASPECTS[1]:
            width = max(round(width * aspect), 1)
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
        matrix = self._first.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _turned(image, np.frombuffer(matrix, np.int32))


@contextmanager
def open_video(path: Path, *, device: str | None = None) -> Iterator[Video]:
    """Opens a video file, whose frames are decoded as they are asked for.

    With ``device``, FFmpeg's name of a kind of cameras ("v4l2"), ``path`` is a camera of that kind.

    Raises FileNotFoundError if there is no such file, and ValueError, naming it and the reason, if it cannot
    be read as a video, has no video stream, or has more pixels than Pillow's limit for images.
    """
    if device is None and not path.is_file():
        raise FileNotFoundError(2, "there is no such file", str(path))
    with _open(path, device) as container:
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            kinds = {"a cover picture" if _is_cover(stream) else stream.type for stream in container.streams}
            listed = " and ".join(sorted(kinds)) or "no streams at all"
            raise ValueError(f"{path}: has no video stream, but {listed}; a video must have one")
        stream = streams[0]
        if stream.codec_context is None:
            raise ValueError(f"{path}: cannot be decoded: FFmpeg has no decoder for its video stream")
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**28)
        if stream.width * stream.height > limit:
            raise ValueError(
                f"{path}: its frames are {stream.width} x {stream.height}; at most {limit} pixels are read"
            )
        stream.codec_context.options = {"max_pixels": str(limit)}  # also of frames further on
        yield Video(path, container, stream)


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture of a music file, which FFmpeg has as a video stream of one frame."""
    return bool(stream.disposition & stream.disposition.attached_pic)


def _open(path: Path, device: str | None = None) -> Any:
    """A container to read; raises ValueError, naming the file, if it is not one of a video's formats."""
    av = _pyav()
    try:
        return av.open(
            str(path if device else path.absolute()),  # an absolute path is never taken for a URL
            format=device,
            options={} if device else {"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        advice = "; images are given without --video" if path.suffix.lower() in suffixes() else ""
        raise ValueError(f"{path}: cannot be read as a video: {error.strerror}{advice}") from error


def _pyav() -> Any:
    """The module; raises ImportError, saying how it is installed, if it is missing."""
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install av (the extra [video])") from error
    return av


def _start_of(container: Any, time_base: Fraction) -> int:
    """When the file begins, in units of ``time_base``: recordings of broadcasts do not begin at 0."""
    return round(Fraction(container.start_time or 0, _MICROSECONDS) / time_base)


class _Clock:
    """Makes the times of a stream begin at 0 and increase.

    Times that go back by more than a second begin again, as in recordings that were joined: what follows is
    shifted to the end of what was before.
    """

    def __init__(self, start: int, time_base: Fraction) -> None:
        self._shift = -start
        self._second = 1 / time_base
        self._last: int | None = None

    def tell(self, time: int | None, step: int) -> int:
        """The time that follows; ``step`` is that from one to the next, which replaces a missing one."""
        if self._last is None:
            self._last = 0 if time is None else time + self._shift
            return self._last
        follows = self._last + step
        if time is not None and self._last - (time + self._shift) > self._second:
            self._shift = follows - time
        self._last = follows if time is None else max(time + self._shift, self._last + 1)
        return self._last


def _turned(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The image as a display matrix has it, to the nearest of the eight turned and mirrored forms.

    The matrix, FFmpeg's nine numbers in three rows, takes a pixel at (x, y) to (a x + c y, b x + d y).
    """
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class VideoWriter:
    """Writes an H.264 video with the timestamps of another one, whose sound it copies, without encoding it.

    Args:
        path: the file; an existing one is replaced. Its suffix is one of ``WRITTEN``.
        like: the video with the frame rate, the time base and the sound.

    It is a context manager: the file is complete when the block is left, also by an exception. Raises OSError
    or ValueError, naming the file, if it cannot be written, or if PyAV was built without x264.

    ``left_out`` names the audio streams that the format does not take, and where the sound was damaged.
    """

    def __init__(self, path: Path, like: Video) -> None:
        self.path = path
        self.left_out: list[str] = []
        self._av = _pyav()
        self._like = like
        self._sound: _Sound | None = None
        self._stream: Any = None
        options = _AT_ONCE | _MUXER[path.suffix.lower()]
        self._container = self._av.open(str(path.absolute()), "w", container_options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._stream is not None:
                with self._named_errors():
                    self._container.mux(self._stream.encode(None))
                    if self._sound is not None and error is None:  # else it ends with the pictures
                        self._sound.copy_until(None)
        finally:
            if self._sound is not None:
                self._sound.close()
            with self._named_errors():
                self._container.close()

    def write(self, image: UInt8[np.ndarray, "height width 3"], like: VideoFrame) -> None:
        """Adds a frame, shown when ``like`` is; all must have one size."""
        # Colours are stored for every two pixels, so that odd sizes are padded with the border.
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._named_errors():
            if self._stream is None:
                self._begin(*image.shape[:2])
            frame = self._av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base, frame.duration = like.timestamp, self._like.time_base, like.duration
            if self._sound is not None:
                self._sound.copy_until(like.time)
            self._container.mux(self._stream.encode(frame))

    def _begin(self, height: int, width: int) -> None:
        try:
            stream: Any = self._container.add_stream("libx264", rate=self._like.frame_rate, options=_ENCODER)
        except self._av.codec.codec.UnknownCodecError as error:
            raise ValueError(f"{self.path}: cannot be written: this PyAV was built without x264") from error
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = self._like.time_base
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # 16 to 235
        self._stream = stream
        self._sound = _Sound(self._like.path, self._container, self.left_out)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        except self._av.error.FFmpegError as error:
            raise ValueError(f"{self.path}: cannot be written: {error.strerror}") from error


class _Sound:
    """The audio of a file, copied into another as it is written.

    The file is opened a second time, because its pictures are read far ahead of those that are written.
    """

    def __init__(self, path: Path, target: Any, problems: list[str]) -> None:
        self._container = _open(path)
        self._target, self._problems = target, problems
        self._streams: dict[int, Any] = {}
        self._clocks: dict[int, _Clock] = {}
        for number, stream in enumerate(self._container.streams.audio):
            try:
                self._streams[stream.index] = target.add_stream_from_template(stream)
                start = _start_of(self._container, stream.time_base)
                self._clocks[stream.index] = _Clock(start, stream.time_base)
            except ValueError as error:  # also if there is no codec of this kind
                problems.append(f"audio stream {number} is left out: {error}")
        sources = [self._container.streams[index] for index in self._streams]
        self._packets = self._container.demux(sources) if sources else iter(())
        self._next = self._read()

    def copy_until(self, seconds: float | None) -> None:
        """Copies what is heard up to a time; all that is left if it is None."""
        while self._next is not None:
            packet = self._next
            if seconds is not None and packet.dts * packet.time_base > seconds:
                return
            packet.stream = self._streams[packet.stream.index]
            self._target.mux(packet)
            self._next = self._read()

    def close(self) -> None:
        self._container.close()

    def _read(self) -> Any:
        """The next packet, with times from the beginning of the file; None at the end."""
        try:
            for packet in self._packets:
                if packet.dts is not None:
                    delay = 0 if packet.pts is None else packet.pts - packet.dts
                    packet.dts = self._clocks[packet.stream.index].tell(packet.dts, packet.duration or 1)
                    packet.pts = packet.dts + delay
                    return packet
        except _pyav().error.FFmpegError as error:
            self._problems.append(f"the sound ends where it cannot be read: {error.strerror}")
        return None
