"""The copyable runner: its NumPy code against the package's, and files that it must refuse."""

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mrcnn_jax import images
from mrcnn_jax.export import runner
from mrcnn_jax.inference.paste import paste_mask
from mrcnn_jax.rle import Rle
from mrcnn_jax.runtime.compilations import compiler_options


@pytest.mark.parametrize(
    ("file", "needs"),
    [("runner.py", {"jax", "numpy", "onnxruntime"}), ("command.py", {"numpy", "runner", "PIL"})],
)
def test_what_they_need(file, needs):
    tree = ast.parse((Path(runner.__file__).parent / file).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names |= {node.module for node in imported}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} == needs
    assert not any(node.module == "PIL" for node in imported if node in tree.body)


def test_its_compiler_options_are_the_packages(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert compiler_options(jax.devices("cpu")[0]) in ({}, runner.CPU_OPTIONS)


def test_two_pixels_resized_by_hand():
    image = np.array([[[0, 0, 0], [100, 50, 20]]], np.uint8)
    expected = [[[0, 0, 0], [25, 13, 5], [75, 38, 15], [100, 50, 20]]]  # 1/4 and 3/4 between the centres
    assert runner.resize(image, (1, 4), "detectron2").tolist() == expected


@pytest.mark.parametrize("rule", ["detectron2", "torchvision", "mmdetection"])
def test_resizing_has_the_bits_of_the_package(rule):
    rng = np.random.default_rng(0)
    for n in range(150):
        old, new = rng.integers(1, 70, 2), rng.integers(1, 70, 2)
        new = (old // 2 + (old == 1), new, (old[0], new[1]), (new[0], old[1]), new)[n % 5]
        image = rng.integers(0, 256, (*old, 3)).astype(np.uint8)
        resized, expected = (
            runner.resize(image, tuple(new), rule),
            images.resize(image, tuple(new), rule=rule),
        )
        assert resized.dtype == expected.dtype
        np.testing.assert_array_equal(resized, expected, err_msg=f"{old} to {new}")
        height, width = rng.integers(1, 3000, 2).tolist()
        sides = {"short_side": int(rng.integers(1, 1500)), "long_side": int(rng.integers(1, 1500))}
        assert runner.resized_shape((height, width), *sides.values(), rule) == images.resized_shape(
            height, width, **sides, rule=rule
        )


def test_a_mask_pasted_by_hand():
    top, left, mask = runner.paste_at_centres(
        np.ones((2, 2), np.float32), np.float32([1, 0, 3, 2]), (3, 4), 0.5
    )
    whole = np.zeros((3, 4), int)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert whole.tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert runner.to_rle((top, left, mask), (3, 4)) == Rle.from_bitmap(whole == 1).compressed()


@pytest.mark.parametrize(
    ("rule", "paste"),
    [("detectron2", runner.paste_at_centres), ("torchvision", runner.paste_in_whole_pixels)],
)
def test_pasting_and_encoding_have_the_bits_of_the_package(rule, paste):
    rng = np.random.default_rng(0)
    for n in range(150):
        size = tuple(rng.integers(1, 90, 2).tolist())
        mask = rng.random((14, 14), np.float32) if n % 2 else np.float32(rng.random((28, 28)) > 0.3)
        corners = np.sort(rng.random((2, 2)) * size[::-1], axis=0)
        corners[0] *= n % 3 > 0  # boxes at the edges of the image
        corners[1] = size[::-1] if n % 4 == 0 else corners[1]
        box = corners.astype(np.float32).ravel()
        crop, expected = (
            paste(mask, box, size, 0.5),
            paste_mask(mask, box, size, 0.5, rule=rule),
        )
        assert crop[:2] == (expected.top, expected.left)
        np.testing.assert_array_equal(crop[2], expected.mask)
        rle = Rle.from_crop(expected.mask, top=expected.top, left=expected.left, image_size=size)
        assert runner.to_rle(crop, size) == rle.compressed()


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
        ({"manifest.json": {"version": 2}}, r"has format 2, not 1: take the runner\.py inside it"),
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
