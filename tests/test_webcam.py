"""scripts/webcam.py with a file in place of the camera, and a window that only counts its pictures."""

import runpy
import sys
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import PIL
import pytest

pytest.importorskip("av", reason="needs PyAV (the extra [video])")

from mrcnn_jax.video_files import VideoFrame
from tests.export.stand_in import with_data, write_stand_in
from tests.make_video import make_video
from tests.run_command import ROOT, run_here

SCRIPT = str(ROOT / "scripts" / "webcam.py")


def frames(count):
    for index in range(count):
        yield VideoFrame(index, 5 + index / 50, index, 1, np.zeros((2, 2, 3), np.uint8), False)


def test_frames_that_come_meanwhile_are_passed_over():
    """Fifty come in a second; the last one is seen, whatever it took to get there."""
    seen = []
    for frame in runpy.run_path(SCRIPT)["newest"](frames(11)):
        seen.append(frame.index)
        time.sleep(0.06)
    assert seen[-1] == 10 and seen == sorted(set(seen)) and len(seen) < 9


def test_the_camera_stops_with_the_window():
    with closing(runpy.run_path(SCRIPT)["newest"](frames(10**6))) as newest:
        assert next(newest).index >= 0


def test_pictures_in_the_window(tiny_config, tmp_path, monkeypatch):
    """It is closed after three pictures."""
    config = with_data(tiny_config, canvases=((64, 96), (96, 64)), long_side=96)
    write_stand_in(tmp_path / "model.mrcnn", config)
    make_video(tmp_path / "in.mp4", [np.full((64, 96, 3), 90, np.uint8)] * 200)
    shown = []

    class TclError(Exception):
        pass

    class Window:
        def __init__(self, *_):
            pass

        def title(self, text):
            assert text == "in.mp4"

        def pack(self):
            pass

        def configure(self, image):
            shown.append(image)

        def update(self):
            if len(shown) == 3:
                raise TclError

    tk = SimpleNamespace(Tk=Window, Label=Window, TclError=TclError)
    monkeypatch.setitem(sys.modules, "tkinter", tk)
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", SimpleNamespace(PhotoImage=np.asarray))
    monkeypatch.setattr(PIL, "ImageTk", sys.modules["PIL.ImageTk"], raising=False)
    done = run_here(SCRIPT, "--workdir=model.mrcnn", "--camera=in.mp4", "--device=", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [picture.shape for picture in shown] == [(448, 672, 3)] * 3


def test_without_a_display_it_says_so(tmp_path, monkeypatch):
    """Before it loads the model."""

    class TclError(Exception):
        pass

    def no_display():
        raise TclError("no display name and no $DISPLAY environment variable")

    monkeypatch.setitem(sys.modules, "tkinter", SimpleNamespace(Tk=no_display, TclError=TclError))
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", SimpleNamespace())
    monkeypatch.setattr(PIL, "ImageTk", sys.modules["PIL.ImageTk"], raising=False)
    done = run_here(SCRIPT, "--workdir=none", directory=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: the window needs a display: no display name and no $DISPLAY environment variable\n"
    )
