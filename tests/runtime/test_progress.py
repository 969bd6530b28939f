import numpy as np
import tqdm

from mrcnn_jax.runtime import progress
from mrcnn_jax.runtime.compilations import CompilationTracker
from mrcnn_jax.runtime.progress import progress_bar

COMPILING = 1000.0  # seconds


def _results(monkeypatch):
    """Two results; the second one compiles, which seems to take a long time."""
    tracker = CompilationTracker("inference", ((32, 64),))
    images = np.zeros((1, 32, 64, 3), np.uint8)
    yield "first"
    clock = iter([0.0, COMPILING])
    monkeypatch.setattr("mrcnn_jax.runtime.compilations.time.perf_counter", lambda: next(clock))
    with tracker.announced(images, tracker.record(images, images)):
        pass
    monkeypatch.undo()
    yield "second"


def test_compilations_are_announced_and_left_out_of_the_time(monkeypatch, capsys):
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *arguments, disable, **options):
            super().__init__(*arguments, disable=False, **options)  # as on a terminal
            bars.append(self)

    monkeypatch.setattr(progress, "tqdm", Bar)
    found = []
    for item in progress_bar(_results(monkeypatch), total=5, initial=3):
        found.append((item, bars[0].n))
        elapsed = bars[0].format_dict["elapsed"]
        assert elapsed < -COMPILING / 2 if item == "second" else elapsed > -1
    assert found == [("first", 3), ("second", 4)] and bars[0].n == 5
    assert "\ncompiling inference for canvas 32x64 ...\n" in capsys.readouterr().err.replace("\r", "\n")


def test_without_a_terminal_only_compilations_are_shown(monkeypatch, capsys):
    assert list(progress_bar(_results(monkeypatch), total=2)) == ["first", "second"]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "compiling inference for canvas 32x64 ...\n... 1000 s\n")


def test_other_processes_show_nothing(monkeypatch, capsys):
    assert list(progress_bar(_results(monkeypatch), total=2, hidden=True)) == ["first", "second"]
    assert capsys.readouterr() == ("", "")
