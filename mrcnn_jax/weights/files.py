"""Weights files as arrays by name: read without trusting them, and written atomically."""

import io
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mrcnn_jax.json_files import replacing
from mrcnn_jax.weights.pickles import NUMPY_BUILDERS, Stored, element_count, read_pickle
from mrcnn_jax.weights.state_dicts import State, choose, find_state_dicts
from mrcnn_jax.weights.torch_files import read_torch
from mrcnn_jax.weights.zips import memory_limit, open_zip, read_entry


class Found(NamedTuple):
    """The result of ``find_arrays``."""

    arrays: dict[str, np.ndarray]
    place: str  # keys and prefix that the arrays' names are without, e.g. "state_dict.module"


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The contiguous arrays of a weights file by name; see ``find_arrays``."""
    return find_arrays(path).arrays


def find_arrays(path: str | Path, wanted: Collection[str] = (), *, key: str | None = None) -> Found:
    """The contiguous arrays of a weights file by name; floats become float32, integers keep their dtype.

    The suffix determines the format:

    - ``.safetensors``; ``.npz``;
    - ``.pth``, ``.pt``, ``.ckpt``, ``.bin``, ``.pth.tar``, ``.pyth``: a torch.save file, in either format;
    - ``.pkl``: a pickled dict of NumPy arrays, as Detectron2 and Caffe2 have it (the optimizer's momentum is
      left out).

    The arrays may be those of a state dict, or lie in a training checkpoint under any key, with any prefix
    in front of their names; these are recognised by the ``wanted`` names (see ``state_dicts.choose``).

    Values that are not arrays are ignored. No file can run code, and the memory used is bounded by the file's
    size (``memory_limit``).

    Args:
        path: The file.
        wanted: The names of the arrays of a model; if empty, the largest state dict is returned as it is.
        key: Where to look in the file, if several sets of weights fit: "ema", "module.encoder_q".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is unknown, or the file is damaged, of another kind, without arrays, holds
            several sets of weights that fit, or refers to classes or functions that are not needed for
            arrays. The message names the file and the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    read = _reader(path)
    try:
        size = path.stat().st_size
        if not size:
            raise ValueError("the file is empty")
        states = find_state_dicts(read(path))
        if not states:
            raise ValueError("it contains no arrays")
        state, place = choose(states, wanted, key)
        return Found(_plain_arrays(state, limit=memory_limit(size)), place)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    # With damaged files, zipfile, zlib, safetensors and NumPy can raise nearly anything.
    except Exception as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a ``.safetensors`` or ``.npz`` file atomically, with the dtypes that ``read_arrays`` returns.

    Raises the errors of ``check_writable``, and ValueError if an array is not of integers or floats.
    """
    path = Path(path)
    check_writable(path)
    with replacing(path) as unfinished:
        _WRITERS[path.suffix](unfinished, {name: _plain(name, np.asarray(arrays[name])) for name in arrays})


def check_writable(path: Path) -> None:
    """Raises FileExistsError for an existing file, ValueError for an unknown suffix or a missing folder."""
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: the file to write must end in one of {', '.join(_WRITERS)}")
    if path.exists():
        raise FileExistsError(f"{path}: already exists and is not overwritten")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")


def _reader(path: Path) -> Callable[[Path], Any]:
    """The function that reads the file; raises ValueError if its name says that it cannot be read."""
    name = path.name.lower()
    part = re.search(r"-(\d{5})-of-(\d{5})\.", name)
    if name.endswith(".index.json") or (part and int(part[2]) > 1):
        kind = f"part {int(part[1])} of {int(part[2])}" if part else "the index of the parts"
        raise ValueError(
            f"{path}: is {kind} of a checkpoint; load the model with the library that saved it, and save its "
            "state dict in one file"
        )
    for suffix, read in _READERS.items():
        if name.endswith(suffix):
            return read
    raise ValueError(f"{path}: a weights file ends in one of {', '.join(_READERS)}")


@dataclass(frozen=True)
class _Entry(Stored):
    """An array that is read on demand."""

    read: Callable[[], np.ndarray]

    def array(self) -> np.ndarray:
        return self.read()


def _plain_arrays(state: State, *, limit: int) -> dict[str, np.ndarray]:
    """The arrays, copied one by one; raises ValueError as soon as they exceed ``limit`` bytes."""
    arrays, size = {}, 0
    for name, stored in state.items():
        array = stored.array()
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


def _read_safetensors(path: Path) -> dict[str, _Entry]:
    arrays = safetensors.numpy.load_file(path)
    return {name: _Entry(partial(arrays.__getitem__, name)) for name in arrays}


def _read_npz(path: Path) -> dict[str, _Entry]:
    archive = open_zip(path.read_bytes())
    for name in archive.namelist():
        if not name.endswith(".npy"):
            raise ValueError(f"it is not an .npz archive: {name[:100]!r} is not an .npy file")
    return {
        name.removesuffix(".npy"): _Entry(partial(_read_npy, archive, name)) for name in archive.namelist()
    }


def _read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array as ``np.load`` reads it, but a shape that the data do not fill allocates nothing."""
    data = read_entry(archive, name)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise ValueError(f"it has an .npy file of unknown version {version}")
    shape, fortran, dtype = _NPY_HEADERS[version](stream)
    start = stream.tell()
    if dtype.hasobject or element_count(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"it has an .npy file with {len(data) - start} bytes for an array {shape} {dtype}")
    return np.ndarray(shape, dtype, buffer=data, offset=start, order="F" if fortran else "C")


def _read_torch(path: Path) -> Any:
    return read_torch(path.read_bytes())


def _read_pickle(path: Path) -> Any:
    return read_pickle(io.BytesIO(path.read_bytes()), NUMPY_BUILDERS)


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.write_bytes(safetensors.numpy.save(arrays))


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # np.savez reserves some names, such as "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".pyth"), _read_torch),
    ".pkl": _read_pickle,
}
_WRITERS = {".safetensors": _write_safetensors, ".npz": _write_npz}
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
