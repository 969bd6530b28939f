import importlib.util
import io
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mrcnn_jax.weights.files import find_arrays, read_arrays, write_arrays

FIXTURES = Path(__file__).parents[1] / "fixtures"
STORED = sorted(path.name for path in (FIXTURES / "torch_files").iterdir())
UNSUPPORTED = {
    "quantised.pth": "it holds quantised tensors; convert the file of the model before quantisation",
    "sparse.pth": "it holds sparse tensors",
    "meta.pth": "it holds meta tensors, which have no values",
    "float8.pth": "it holds tensors of a dtype such as float8 or uint16; save the weights as float32",
    "torchscript.pt": "it is a TorchScript program; save its weights",
}
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".pkl")


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    path = FIXTURES / "torch_files.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.expected()


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)
        assert (
            type(found[name]) is np.ndarray and found[name].flags.c_contiguous and found[name].flags.writeable
        )


def test_a_file_by_hand(tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(
        pickle.dumps({"b": np.array([1.5, -2.0]), "c": np.array(3), "d": "text"})
    )
    found = read_arrays(tmp_path / "a.pkl")
    assert_same(found, {"b": np.array([1.5, -2.0], np.float32), "c": np.array(3)})


@pytest.mark.parametrize("name", STORED)
def test_files_that_torch_and_numpy_wrote(name: str, expected):
    assert_same(read_arrays(FIXTURES / "torch_files" / name), expected)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_files_of_torch_without_a_float_models_weights(name: str):
    with pytest.raises(ValueError, match=rf"{name}: cannot be read: {UNSUPPORTED[name]}"):
        read_arrays(FIXTURES / "torch_files_unsupported" / name)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pth.tar", ".pyth"])
def test_other_suffixes_of_torch_files(tmp_path: Path, suffix: str, expected):
    path = tmp_path / f"a{suffix}"
    path.write_bytes((FIXTURES / "torch_files" / "checkpoint.pth").read_bytes())
    assert_same(read_arrays(path), expected)


def test_arrays_are_found_by_the_names_of_a_model(tmp_path: Path):
    def named(value: float, *names: str) -> dict[str, np.ndarray]:
        return {name: np.array([value], np.float32) for name in names}

    content = {
        "epoch": 3,
        "momentum": named(0, *"abcdefg"),
        "net": named(1, "module.a", "module.b") | named(2, "queue"),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    found = find_arrays(tmp_path / "a.pkl", {"a", "b", "c"}, key="net")
    assert found.place == "net.module"
    assert_same(found.arrays, named(1, "a", "b"))
    assert_same(find_arrays(tmp_path / "a.pkl").arrays, content["momentum"])
    with pytest.raises(ValueError, match=r"a\.pkl: cannot be read: it has no arrays under 'ema', only under"):
        find_arrays(tmp_path / "a.pkl", {"a"}, key="ema")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.safetensors.index.json", "the index of the parts of a checkpoint"),
        ("pytorch_model.bin.index.json", "the index of the parts of a checkpoint"),
        ("pytorch_model-00002-of-00003.bin", "part 2 of 3 of a checkpoint"),
    ],
)
def test_a_part_of_a_checkpoint(tmp_path: Path, name: str, kind: str):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match=rf"{name}: is {kind}; .*save its state dict in one file"):
        read_arrays(tmp_path / name)


def test_torch_is_not_imported():
    code = f"""
import sys
from mrcnn_jax.weights.files import read_arrays
read_arrays({str(FIXTURES / "torch_files" / "zip.pth")!r})
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_write_and_read_back(tmp_path: Path, suffix: str, expected):
    arrays = {**expected, "file": np.array([1, 2], np.int8), "é/x": np.array(np.nan, np.float32)}
    path = tmp_path / f"weights{suffix}"
    write_arrays(path, arrays)
    assert_same(read_arrays(path), arrays)
    write_arrays(tmp_path / f"again{suffix}", read_arrays(path))
    assert_same(read_arrays(tmp_path / f"again{suffix}"), arrays)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f"again{suffix}", f"weights{suffix}"]
    if suffix == ".npz":
        with np.load(path) as archive:
            assert_same(dict(archive), arrays)


def typed() -> dict[str, np.ndarray]:
    values = np.array([[1, 2], [3, 4]])
    return {
        "half": values.astype(np.float16),
        "double": values.astype(np.float64),
        "big": values.astype(">f4"),
        "turned": values.astype(np.float32).T,
        "every other": values.astype(np.int32)[:, ::2],
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_floats_become_float32(tmp_path: Path, suffix: str):
    floats = np.array([[1, 2], [3, 4]], np.float32)
    integers = np.array([[1], [3]], np.int32)
    wanted = {"half": floats, "double": floats, "big": floats, "turned": floats.T, "every other": integers}
    write_arrays(tmp_path / f"a{suffix}", typed())
    assert_same(read_arrays(tmp_path / f"a{suffix}"), wanted)


def test_files_of_other_writers(tmp_path: Path):
    floats = np.array([[1, 2], [3, 4]], np.float32)
    np.savez_compressed(tmp_path / "a.npz", **typed())
    wanted = {"half": floats, "double": floats, "big": floats, "turned": floats.T}
    assert_same(read_arrays(tmp_path / "a.npz"), wanted | {"every other": np.array([[1], [3]], np.int32)})
    short = {"b": floats.astype(jnp.bfloat16), "h": floats.astype(np.float16)}
    safetensors.numpy.save_file(short, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_same(read_arrays(tmp_path / "a.safetensors"), {"b": floats, "h": floats})


@pytest.mark.parametrize("wrap", [lambda blobs: blobs, lambda blobs: {"blobs": blobs, "cfg": "MODEL: ..."}])
def test_caffe2_momentum_is_left_out(tmp_path: Path, wrap):
    blobs = {"conv1_w": np.ones(2, np.float32), "conv1_w_momentum": np.ones(2, np.float32), "lr": 0.1}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(wrap(blobs), 2))
    assert list(read_arrays(tmp_path / "a.pkl")) == ["conv1_w"]


def test_no_such_file(tmp_path: Path):
    for name in ("none.pth", "none.xyz", "."):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_arrays(tmp_path / name)


def test_suffixes(tmp_path: Path):
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(
        ValueError,
        match=r"h5: .* one of \.safetensors, \.npz, \.pth, \.pt, \.ckpt, \.bin, \.pth\.tar, \.pyth, \.pkl$",
    ):
        read_arrays(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a\.pth: .* must end in one of \.safetensors, \.npz"):
        write_arrays(tmp_path / "a.pth", {"a": np.zeros(1)})
    np.savez(tmp_path / "B.NPZ.npz", a=np.zeros(1, np.float32))
    (tmp_path / "B.NPZ.npz").rename(tmp_path / "B.NPZ")
    assert list(read_arrays(tmp_path / "B.NPZ")) == ["a"]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_no_file_is_overwritten(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=rf"a\{suffix}: already exists"):
        write_arrays(path, {"a": np.zeros(1)})
    assert path.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.array([1j])])
def test_an_array_that_cannot_be_written_leaves_nothing(tmp_path: Path, suffix: str, array: np.ndarray):
    with pytest.raises(ValueError, match=r"'a' has dtype .*; it must be an integer or float type"):
        write_arrays(tmp_path / f"a{suffix}", {"a": array})
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        write_arrays(tmp_path / "a.npz", {"a": np.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<html>Not found</html>\n", b"\x00" * 100, b"PK"])
def test_files_of_another_kind(tmp_path: Path, suffix: str, content: bytes):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}: cannot be read: ."):
        read_arrays(tmp_path / f"a{suffix}")


def zip_of(**entries: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + data


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}\n"


ONE_GIB = HEADER % ("<f4", f"({2**28},)")


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".npz", zip_of(**{"readme.txt": b"hello"}), r"not an \.npz archive: 'readme\.txt' is not an \.npy"),
        (".npz", zip_of(**{"a.npy": b"hello, this is no array"}), "magic string"),
        (
            ".npz",
            zip_of(**{"a.npy": npy(HEADER % ("<f4", "(2,)"), bytes(8), b"\x09\x00")}),
            r"version \(9, 0\)",
        ),
        (".npz", zip_of(**{"a.npy": npy(ONE_GIB)}), r"0 bytes for an array \(268435456,\) float32"),
        (".npz", zip_of(**{"a.npy": npy(HEADER % ("<f4", "(-2,)"), bytes(8))}), "non-negative integers"),
        (".npz", zip_of(**{"a.npy": npy(HEADER % ("|O", "(1,)"), bytes(8))}), r"array \(1,\) object"),
        (
            ".npz",
            zip_of(**{"a.npy": npy(HEADER % ("<U2", "(1,)"), bytes(8))}),
            "'a' has dtype <U2",
        ),
        (".npz", zip_of(), "it contains no arrays"),
        (".npz", zip_of(**{"a.npy": bytes(2**26 + 1)}), "would unpack to 67108865, more than weights do"),
        (".pth", zip_of(**{"a/data.pkl": bytes(2**26 + 1)}), "would unpack to 67108865, more than weights"),
        (".pth", zip_of(**{"readme.txt": b"hello"}), r"without the data\.pkl of a torch file"),
        (".pkl", pickle.dumps([np.zeros(1)]), "it holds a list; it must hold a dict of arrays"),
        (".pkl", pickle.dumps(np.zeros(1)), "must hold a dict of arrays"),
        (".pkl", pickle.dumps({"model": {"a": "b"}}), "it contains no arrays"),
        (".pkl", pickle.dumps({"a": np.array([None])}), "dtype 'O8'"),
        (".pkl", pickle.dumps({"a": np.array([1e300])}), "'a' has values beyond the range of float32"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, suffix: str, content: bytes, message: str):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}: cannot be read: .*{message}"):
        read_arrays(tmp_path / f"a{suffix}")


class Touch:
    """Creates the file when unpickled unsafely."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_runs_code(tmp_path: Path, suffix: str):
    attack = pickle.dumps(Touch(tmp_path / "marker"), 2)
    objects = io.BytesIO()
    np.save(objects, np.array([Touch(tmp_path / "marker")]), allow_pickle=True)
    for content in (attack, zip_of(**{"archive/data.pkl": attack}), zip_of(**{"a.npy": objects.getvalue()})):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\{suffix}: cannot be read: ") as error:
            read_arrays(tmp_path / f"a{suffix}")
        if content is attack and suffix in (".pth", ".pt", ".pkl"):
            assert f"{os.system.__module__}.system" in str(error.value)
    assert not (tmp_path / "marker").exists()
    pickle.loads(attack)
    assert (tmp_path / "marker").exists()


def test_one_array_under_many_names_does_not_fill_the_memory(tmp_path: Path):
    array = np.zeros(2**18, np.float32)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({str(i): array for i in range(1000)}, 2))
    tracemalloc.start()
    with pytest.raises(ValueError, match="its arrays would take more than 67108864 bytes"):
        read_arrays(tmp_path / "a.pkl")
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


def samples(directory: Path, expected: dict[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """The suffix and content of a small file of every kind."""
    for suffix in (".safetensors", ".npz"):
        path = directory / f"sample{suffix}"
        write_arrays(path, expected)
        yield suffix, path.read_bytes()
    for name in STORED:
        yield Path(name).suffix, (FIXTURES / "torch_files" / name).read_bytes()


def test_truncated_files(tmp_path: Path, expected):
    for suffix, content in samples(tmp_path, expected):
        path = tmp_path / f"cut{suffix}"
        for end in (1, 8, 100, len(content) // 3, len(content) // 2, len(content) - 30, len(content) - 1):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError, match=rf"cut\{suffix}: cannot be read: ."):
                read_arrays(path)


@pytest.mark.parametrize("times", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_files_give_arrays_or_a_value_error(tmp_path: Path, expected, times: int):
    rng = random.Random(0)
    for suffix, content in samples(tmp_path, expected):
        path = tmp_path / f"damaged{suffix}"
        for _ in range(times):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            try:
                arrays = read_arrays(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: cannot be read: ")
            else:
                assert all(
                    type(array) is np.ndarray and array.dtype.kind in "biuf" for array in arrays.values()
                )
