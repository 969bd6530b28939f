"""Weights files as arrays by name: read without trusting them, and written atomically."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mrcnn_jax.weights.pickles import NUMPY_BUILDERS, Stored, element_count, read_pickle
from mrcnn_jax.weights.torch_files import read_torch
from mrcnn_jax.weights.zips import memory_limit, open_zip, read_entry

Named = Iterator[tuple[str, np.ndarray]]


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The contiguous arrays of a weights file by name; floats become float32, integers keep their dtype.

    The suffix determines the format:

    - ``.safetensors``; ``.npz``;
    - ``.pth``, ``.pt``: a torch.save file, in either of its formats. It holds a state dict, or a training
      checkpoint with the state dict under "model" or "state_dict";
    - ``.pkl``: a pickled dict of NumPy arrays, as Detectron2 has it (under "model") or Caffe2 (under "blobs"
      or at the top level; the optimizer's momentum is left out).

    Values that are not arrays are ignored. No file can run code, and the memory used is bounded by the file's
    size (``memory_limit``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is unknown, or the file is damaged, of another kind, without arrays, or refers
            to classes or functions that are not needed for arrays. The message names the file and the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: a weights file ends in one of {', '.join(_READERS)}")
    try:
        size = path.stat().st_size
        if not size:
            raise ValueError("the file is empty")
        arrays = _plain_arrays(_READERS[path.suffix.lower()](path), limit=memory_limit(size))
        if not arrays:
            raise ValueError("it contains no arrays")
        return arrays
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    # With damaged files, zipfile, zlib, safetensors and NumPy can raise nearly anything.
    except Exception as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a ``.safetensors`` or ``.npz`` file atomically, with the dtypes that ``read_arrays`` returns.

    Raises:
        FileExistsError: the file already exists; it is left unchanged.
        ValueError: the suffix is neither of these, or an array is not of integers or floats.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: the file to write must end in one of {', '.join(_WRITERS)}")
    if path.exists():
        raise FileExistsError(f"{path}: already exists and is not overwritten")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _WRITERS[path.suffix](unfinished, {name: _plain(name, np.asarray(arrays[name])) for name in arrays})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _plain_arrays(found: Named, *, limit: int) -> dict[str, np.ndarray]:
    """The arrays, copied one by one; raises ValueError as soon as they exceed ``limit`` bytes."""
    arrays, size = {}, 0
    for name, array in found:
        size += array.size * max(array.dtype.itemsize, 4)  # many tensors may share one storage
        if size > limit:
            raise ValueError(f"its arrays would take more than {limit} bytes, many times the file's size")
        arrays[name] = _plain(name, array)
    return arrays


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """A contiguous copy in the machine's byte order, with floats as float32."""
    if array.dtype.kind in "biu":
        return np.array(array, array.dtype.newbyteorder("="), order="C")
    if array.dtype.kind != "f" and array.dtype != jnp.bfloat16:
        raise ValueError(f"{name!r} has dtype {array.dtype}; it must be an integer or float type")
    try:
        with np.errstate(over="raise", invalid="ignore"):  # invalid: raised by some NaNs
            return np.array(array, np.float32, order="C")
    except FloatingPointError as error:
        raise ValueError(f"{name!r} has values beyond the range of float32") from error


def _read_safetensors(path: Path) -> Named:
    yield from safetensors.numpy.load_file(path).items()


def _read_npz(path: Path) -> Named:
    archive = open_zip(path.read_bytes())
    for name in archive.namelist():
        if not name.endswith(".npy"):
            raise ValueError(f"it is not an .npz archive: {name[:100]!r} is not an .npy file")
        yield name.removesuffix(".npy"), _read_npy(read_entry(archive, name))


def _read_npy(data: bytes) -> np.ndarray:
    """The array as ``np.load`` reads it, but a shape that the data do not fill allocates nothing."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise ValueError(f"it has an .npy file of unknown version {version}")
    shape, fortran, dtype = _NPY_HEADERS[version](stream)
    start = stream.tell()
    if dtype.hasobject or element_count(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"it has an .npy file with {len(data) - start} bytes for an array {shape} {dtype}")
    return np.ndarray(shape, dtype, buffer=data, offset=start, order="F" if fortran else "C")


def _read_torch(path: Path) -> Named:
    return _named(_state_dict(read_torch(path.read_bytes()), ("model", "state_dict")))


def _read_pickle(path: Path) -> Named:
    content = read_pickle(io.BytesIO(path.read_bytes()), NUMPY_BUILDERS)
    found = _named(_state_dict(content, ("model", "blobs")))
    return ((name, array) for name, array in found if not name.endswith("_momentum"))


def _state_dict(content: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}; it must hold a dict of arrays")
    return next((content[key] for key in keys if isinstance(content.get(key), dict)), content)


def _named(values: dict[str, Any]) -> Named:
    return ((name, value.array()) for name, value in values.items() if isinstance(value, Stored))


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.write_bytes(safetensors.numpy.save(arrays))


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # np.savez reserves some names, such as "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


_READERS: dict[str, Callable[[Path], Named]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pkl": _read_pickle,
}
_WRITERS = {".safetensors": _write_safetensors, ".npz": _write_npz}
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
