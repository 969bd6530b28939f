#!/usr/bin/env python3
"""Shows what a model finds in the pictures of a camera, in a window, until it is closed.

    scripts/webcam.py --workdir=runs/shapes
    scripts/webcam.py --workdir=runs/shapes --camera=in.mp4 --device=

Cameras are /dev/video0 and so on; on macOS, --device=avfoundation --camera=0. Without a device, --camera is a
video file, which is shown as fast as it was recorded. Pictures that come while others are computed are passed
over. Needs PyAV (pip install -e '.[video]') and Tk (Debian's python3-tk).
"""

import argparse
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import mrcnn_jax
from mrcnn_jax.inference.video import FrameResult
from mrcnn_jax.video_files import VideoFrame, open_video


def newest(frames: Iterator[VideoFrame]) -> Generator[VideoFrame, None, None]:
    """Yields the frame that came last, each time that it is asked for one."""
    latest: Queue[VideoFrame | None] = Queue()
    stopped = Event()

    def read() -> None:
        begin = None
        try:
            for frame in frames:
                begin = time.monotonic() - frame.time if begin is None else begin
                if stopped.wait(begin + frame.time - time.monotonic()):  # a file's; a camera's come in time
                    return
                with suppress(Empty):
                    latest.get_nowait()
                latest.put(frame)
        finally:
            latest.put(None)

    reader = Thread(target=read)
    reader.start()
    try:
        while (frame := latest.get()) is not None:
            yield frame
    finally:
        stopped.set()
        reader.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="a run, a published model's name, or a model file")
    parser.add_argument("--camera", default="/dev/video0")
    parser.add_argument("--device", default="v4l2")
    parser.add_argument("--score_threshold", type=float, default=0.5)
    options = parser.parse_args()

    import tkinter

    from PIL import Image, ImageTk

    try:
        window = tkinter.Tk()
    except tkinter.TclError as error:
        raise SystemExit(f"error: the window needs a display: {error}") from error
    window.title(options.camera)
    label = tkinter.Label(window)
    label.pack()
    mrcnn_jax.setup()
    detector = mrcnn_jax.load(options.workdir)
    with (
        open_video(Path(options.camera), device=options.device or None) as camera,
        closing(newest(camera.frames())) as frames,
        suppress(tkinter.TclError),  # the window was closed
    ):
        for frame in frames:
            picture = FrameResult(frame, detector(frame.image)).draw(options.score_threshold)
            shown = ImageTk.PhotoImage(Image.fromarray(picture))
            label.configure(image=shown)
            window.update()


if __name__ == "__main__":
    main()
