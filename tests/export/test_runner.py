"""The copyable runner: its NumPy code against the package's, and files that it must refuse."""

import ast
import hashlib
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


def test_it_needs_only_jax_and_numpy():
    tree = ast.parse(Path(runner.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"jax", "numpy", "PIL"}  # Pillow only inside read_image
    assert not any(isinstance(node, ast.ImportFrom) and node.module == "PIL" for node in tree.body)


def test_its_compiler_options_are_the_packages(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert compiler_options(jax.devices("cpu")[0]) in ({}, runner.CPU_OPTIONS)


def test_two_pixels_resized_by_hand():
    image = np.array([[[0, 0, 0], [100, 50, 20]]], np.uint8)
    expected = [[[0, 0, 0], [25, 13, 5], [75, 38, 15], [100, 50, 20]]]  # 1/4 and 3/4 between the centres
    assert runner.RESIZE["detectron2"](image, (1, 4)).tolist() == expected


@pytest.mark.parametrize("rule", runner.RESIZE)
def test_resizing_has_the_bits_of_the_package(rule):
    rng = np.random.default_rng(0)
    for n in range(150):
        old, new = rng.integers(1, 70, 2), rng.integers(1, 70, 2)
        new = (old // 2 + (old == 1), new, (old[0], new[1]), (new[0], old[1]), new)[n % 5]
        image = rng.integers(0, 256, (*old, 3)).astype(np.uint8)
        resized, expected = (
            runner.RESIZE[rule](image, tuple(new)),
            images.resize(image, tuple(new), rule=rule),
        )
        assert resized.dtype == expected.dtype
        np.testing.assert_array_equal(resized, expected, err_msg=f"{old} to {new}")
        height, width = rng.integers(1, 3000, 2).tolist()
        sides = {"short_side": int(rng.integers(1, 1500)), "long_side": int(rng.integers(1, 1500))}
        assert runner._resized_shape(height, width, *sides.values(), rule) == images.resized_shape(
            height, width, **sides, rule=rule
        )


def test_a_mask_pasted_by_hand():
    top, left, mask = runner.PASTE["detectron2"](
        np.ones((2, 2), np.float32), np.float32([1, 0, 3, 2]), (3, 4), 0.5
    )
    whole = np.zeros((3, 4), int)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert whole.tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert runner._to_rle((top, left, mask), (3, 4)) == Rle.from_bitmap(whole == 1).compressed()


@pytest.mark.parametrize("rule", runner.PASTE)
def test_pasting_and_encoding_have_the_bits_of_the_package(rule):
    rng = np.random.default_rng(0)
    for n in range(150):
        size = tuple(rng.integers(1, 90, 2).tolist())
        mask = rng.random((14, 14), np.float32) if n % 2 else np.float32(rng.random((28, 28)) > 0.3)
        corners = np.sort(rng.random((2, 2)) * size[::-1], axis=0)
        corners[0] *= n % 3 > 0  # boxes at the edges of the image
        corners[1] = size[::-1] if n % 4 == 0 else corners[1]
        box = corners.astype(np.float32).ravel()
        crop, expected = (
            runner.PASTE[rule](mask, box, size, 0.5),
            paste_mask(mask, box, size, 0.5, rule=rule),
        )
        assert crop[:2] == (expected.top, expected.left)
        np.testing.assert_array_equal(crop[2], expected.mask)
        rle = Rle.from_crop(expected.mask, top=expected.top, left=expected.left, image_size=size)
        assert runner._to_rle(crop, size) == rle.compressed()


def test_reading_images(tmp_path):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.save(tmp_path / "a.npy", image)
    (tmp_path / "a.ppm").write_bytes(b"P6\n# made by hand\n3 2\n255\n" + image.tobytes())
    for name in ("a.npy", "a.ppm"):
        assert runner.read_image(str(tmp_path / name)).tolist() == image.tolist()
    (tmp_path / "b.ppm").write_bytes(b"P3 1 1 255 0 0 0")
    with pytest.raises(ValueError, match=r"b\.ppm: is not a binary 8-bit RGB \.ppm file"):
        runner.read_image(str(tmp_path / "b.ppm"))
    np.save(tmp_path / "b.npy", np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        runner.read_image(str(tmp_path / "b.npy"))


def write(path: Path, *, manifest: Any = None, compression: int = zipfile.ZIP_STORED, **files: bytes) -> str:
    """A file of a model whose only program is the entry "program"."""
    contents = {"program": b"", "weights.safetensors": (2).to_bytes(8, "little") + b"{}", **files}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    made = {"version": 1, "jax": "0.1", "programs": {"cpu": ["program"]}, "sha256": digests}
    made = made if manifest is None else manifest if isinstance(manifest, list) else made | manifest
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"manifest.json": json.dumps(made), **contents}.items():
            archive.writestr(name, content)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "its entries must be uncompressed"),
        ({"manifest": []}, "is not a model that mrcnn-jax export wrote: TypeError"),
        ({"manifest": {"programs": {"cpu": ["../other"]}}}, "is not a model .*KeyError.*other"),
        ({"manifest": {"version": 2}}, "has format 2, this runner reads 1: take the runner.py of"),
        ({"manifest": {"programs": {"tpu": ["program"]}}}, "has programs for tpu, but jax runs on cpu"),
        ({"manifest": {"sha256": {"program": None}}}, "program is damaged: its SHA-256 is not"),
        ({}, "was exported with jax 0.1, and jax .* cannot read it .*: install that version, or export"),
    ],
)  # fmt: skip
def test_what_it_refuses(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"(?s)model\.mrcnn: {message}"):
        runner.load(write(tmp_path / "model.mrcnn", **changes))


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "model.mrcnn").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"model\.mrcnn: is not a model that mrcnn-jax export wrote: BadZip"):
        runner.load(str(tmp_path / "model.mrcnn"))


def program(function: Any, *shapes: tuple[int, ...]) -> bytes:
    arguments = [jax.ShapeDtypeStruct(shape, np.uint8) for shape in shapes]
    checks = [jax.export.DisabledSafetyCheck.custom_call("evil")]
    return bytes(jax.export.export(jax.jit(function), disabled_checks=checks)(*arguments).serialize())


def test_a_program_that_calls_into_the_process_is_refused(tmp_path):
    def call(images, sizes):
        return jax.ffi.ffi_call("evil", jax.ShapeDtypeStruct((1, 2), np.uint8))(sizes)

    path = write(tmp_path / "model.mrcnn", program=program(call, (1, 8, 8, 3), (1, 2)))
    with pytest.raises(ValueError, match="has a program with a custom call, which a model has none of"):
        runner.load(path)


def test_a_program_for_huge_images_is_refused(tmp_path):
    path = write(tmp_path / "model.mrcnn", program=program(lambda i, s: s, (1, 2**20, 2**20, 3), (1, 2)))
    with pytest.raises(
        ValueError, match=r"program takes 1 images of \[1048576, 1048576\] pixels; at most 16384"
    ):
        runner.load(path)


def test_usage(capsys):
    with pytest.raises(SystemExit, match=r"python runner\.py model\.mrcnn image\.npy"):
        runner.main([])
    with pytest.raises(SystemExit, match=r"error: .*none\.mrcnn"):
        runner.main(["none.mrcnn", "image.npy"])
