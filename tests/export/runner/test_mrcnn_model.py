"""Files that the runner must refuse."""

import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mrcnn_jax.export import runner
from mrcnn_jax.export.runner.mrcnn_model import CPU_OPTIONS
from mrcnn_jax.runtime.compilations import compiler_options


def test_its_compiler_options_are_the_packages(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert compiler_options(jax.devices("cpu")[0]) in ({}, CPU_OPTIONS)


def write(path: Path, *, compression: int = zipfile.ZIP_STORED, **entries: Any) -> str:
    """A file of a model whose only program is empty; ``entries`` are others, or without a value none."""
    contents = {
        "manifest.json": {"version": 1, "jax": "0.1", "step": 7},
        "config.json": {},
        "categories.json": {},
        "programs/cpu-1x8x8.stablehlo": b"",
        "weights.safetensors": (2).to_bytes(8, "little") + b"{}",
        **entries,
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return str(path)


PROGRAM = "programs/cpu-1x8x8.stablehlo"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "its entries must be uncompressed"),
        ({"manifest.json": []}, "is damaged or not from mrcnn-jax export: TypeError"),
        ({"manifest.json": None}, "is damaged or not from mrcnn-jax export: KeyError.*manifest.json"),
        ({"manifest.json": {"version": 2}}, r"has format 2, not 1: take the runner of the mrcnn_jax"),
        ({PROGRAM: None, "programs/tpu-1x8x8.stablehlo": b""}, "has programs for tpu, but jax runs on cpu"),
        ({}, "was exported with jax 0.1, and jax .* cannot read it .*: install that version, or export"),
    ],
)  # fmt: skip
def test_what_it_refuses(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"(?s)model\.mrcnn: {message}"):
        runner.load(write(tmp_path / "model.mrcnn", **changes))


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "model.mrcnn").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"model\.mrcnn: is damaged or not from mrcnn-jax export: BadZip"):
        runner.load(str(tmp_path / "model.mrcnn"))


def program(function: Any, *shapes: tuple[int, ...]) -> bytes:
    arguments = [jax.ShapeDtypeStruct(shape, np.uint8) for shape in shapes]
    checks = [jax.export.DisabledSafetyCheck.custom_call("evil")]
    return bytes(jax.export.export(jax.jit(function), disabled_checks=checks)(*arguments).serialize())


def test_a_program_that_calls_into_the_process_is_refused(tmp_path):
    def call(images, sizes):
        return jax.ffi.ffi_call("evil", jax.ShapeDtypeStruct((1, 2), np.uint8))(sizes)

    path = write(tmp_path / "model.mrcnn", **{PROGRAM: program(call, (1, 8, 8, 3), (1, 2))})
    with pytest.raises(ValueError, match="has a program with a custom call, which a model has none of"):
        runner.load(path)
