import inspect
import warnings
from typing import NamedTuple

import numpy as np
import pytest

from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options, watch_compilations


def _images(height=32, width=64, *, count=2, dtype=np.uint8):
    return np.zeros((count, height, width, 3), dtype)


def _record(compilations, images, **others):
    return compilations.record(images, {"images": images, **others})


@pytest.fixture
def compilations():
    return CompilationTracker("inference", ((32, 64), (64, 32)))


def test_one_compilation_per_canvas_is_expected(compilations):
    for new in (True, False):
        assert _record(compilations, _images(32, 64)) is new
        assert _record(compilations, _images(64, 32)) is new


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (_images(count=4), "images: uint8 [4, 32, 64, 3], before uint8 [2, 32, 64, 3]"),
        (_images(dtype=np.float32), "images: float32 [2, 32, 64, 3], before uint8 [2, 32, 64, 3]"),
    ],
)
def test_other_inputs_for_a_canvas_are_reported_once(compilations, other, difference):
    _record(compilations, _images())
    with pytest.warns(UserWarning) as told:
        _record(compilations, other)
    assert [str(warning.message) for warning in told] == [
        f"inference is compiled again, which takes time: {difference}"
    ]
    _record(compilations, other)
    _record(compilations, _images())


def test_an_input_that_is_added_or_removed(compilations):
    _record(compilations, _images(), masks=np.zeros(3, bool))
    with pytest.warns(UserWarning, match=r"time: masks: none, before bool \[3\]$"):
        _record(compilations, _images())


def test_an_unexpected_canvas_is_reported_once(compilations):
    rule = r"images are 32x96, which is not in data.canvases \(32x64, 64x32\)$"
    with pytest.warns(UserWarning, match=rule):
        _record(compilations, _images(32, 96))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _record(compilations, _images(32, 96))


def test_only_calls_that_compile_are_announced_and_timed(compilations):
    told = []

    def call(images, listener):
        with watch_compilations(listener):
            compiles = _record(compilations, images)
            with compilations.announced(images, compiles):
                told.append("call")

    call(_images(32, 64), lambda *of: told.append(of))
    (before, call_, (what, seconds)) = told
    assert (before, call_) == (("inference for canvas 32x64", None), "call")
    assert what == "inference for canvas 32x64" and 0 <= seconds < 60
    told.clear()
    call(_images(32, 64), lambda *of: told.append(of))
    call(_images(64, 32), None)  # nobody listens
    assert told == ["call", "call"]


def test_the_innermost_listener_is_told_and_the_outer_one_again_after_it(compilations):
    told = []
    with watch_compilations(lambda *_: told.append("outer")):
        with watch_compilations(lambda *_: told.append("inner")), compilations.announced(_images(), True):
            pass
        with compilations.announced(_images(), True):
            pass
    with compilations.announced(_images(), True):
        pass
    assert told == ["inner", "inner", "outer", "outer"]


class _Device(NamedTuple):
    platform: str
    compute_capability: str = ""


def test_options_are_the_devices_unless_set_by_the_user(monkeypatch):
    options = inspect.unwrap(compiler_options)  # without the check of argument types
    monkeypatch.setenv("XLA_FLAGS", "")
    assert options(_Device("tpu")) == options(_Device("gpu", "9.0")) == options(_Device("gpu", "10.0")) == {}
    assert options(_Device("gpu", "8.0")) == options(_Device("gpu", "8.9")) == {"xla_gpu_ftz": True}
    assert options(_Device("gpu", "gfx942")) == {}  # one of AMD's
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_ftz=false")
    assert options(_Device("gpu", "8.0")) == {}
