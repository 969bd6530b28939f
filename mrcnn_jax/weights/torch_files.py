"""Reads torch.save files without torch: the zip format, and the format before torch 1.6.

Both hold a pickle, in which tensors are views (offset, shape, strides) of storages, and the storages' bytes:
as entries of the archive, or one after another behind the pickle.
"""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from mrcnn_jax.weights.pickles import (
    NUMPY_BUILDERS,
    Name,
    Stored,
    element_count,
    ignore,
    never_called,
    read_pickle,
)
from mrcnn_jax.weights.zips import open_zip, read_entry

Buffer = bytes | memoryview

_DTYPES: dict[str, np.dtype] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
    "torch.ComplexFloatStorage": np.dtype("<c8"),
    "torch.ComplexDoubleStorage": np.dtype("<c16"),
}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the format before torch 1.6


def read_torch(data: bytes) -> Any:
    """The object in a ``.pth`` file's bytes, with tensors as ``Stored``, whose values are read on demand.

    Raises ValueError for a file of another kind or one that could run code; a damaged file can raise nearly
    anything.
    """
    return _read_zipped(data) if data.startswith(b"PK") else _read_legacy(data)


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    count: int  # elements
    read: Callable[[str], Buffer]  # from a key to the storage's bytes


@dataclass(frozen=True)
class _Tensor(Stored):
    storage: _Storage
    offset: int  # in elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements

    def array(self) -> np.ndarray:
        dtype, count = self.storage.dtype, self.storage.count
        data = self.storage.read(self.storage.key)
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"a storage of {count} {dtype} has {len(data)} bytes")
        size = element_count(self.shape)
        if not size:
            return np.empty(self.shape, dtype)
        # NumPy's own check of strides overflows. A tensor with more elements than its storage would be a
        # broadcast, by which a few bytes could fill the memory.
        steps = zip(self.shape, self.strides, strict=True)
        if size > count or self.offset + sum((side - 1) * stride for side, stride in steps) >= count:
            raise ValueError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset} does not "
                f"lie in its storage of {count} elements"
            )
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, data, self.offset * dtype.itemsize, strides)


def _read_zipped(data: bytes) -> Any:
    archive = open_zip(data)
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without the data.pkl of a torch file")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and read_entry(archive, f"{root}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine, which is not supported")

    @functools.cache  # many tensors may share one storage
    def read(key: str) -> bytes:
        return read_entry(archive, f"{root}data/{key}")

    stream = io.BytesIO(read_entry(archive, pickles[0]))
    return read_pickle(stream, _BUILDERS, functools.partial(_find_storage, read=read))


def _read_legacy(data: bytes) -> Any:
    stream = io.BytesIO(data)
    try:
        start = [read_pickle(stream, {}), read_pickle(stream, {})]
    except ValueError as error:
        raise ValueError(f"it does not start like a torch.save file: {error}") from error
    if start != [_MAGIC, _VERSION]:
        raise ValueError("it does not start like a torch.save file")
    machine = read_pickle(stream, {})
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine, which is not supported")

    storages: dict[str, _Storage] = {}
    blocks: dict[str, Buffer] = {}

    def find(persistent_id: Any) -> _Storage:
        storage = _find_storage(persistent_id, read=blocks.__getitem__)
        return storages.setdefault(storage.key, storage)

    content = read_pickle(stream, _BUILDERS, find)
    for key in read_pickle(stream, {}):
        begin = stream.tell() + 8
        storage, count = storages[key], int.from_bytes(stream.read(8), "little")
        end = begin + count * storage.dtype.itemsize
        if count != storage.count or end > len(data):
            raise ValueError("its tensor values are truncated or damaged")
        blocks[key] = memoryview(data)[begin:end]
        stream.seek(end)
    return content


def _find_storage(persistent_id: Any, *, read: Callable[[str], Buffer]) -> _Storage:
    match persistent_id:
        # The rest, only in the older format, is the storage that it is a view of: None since torch 0.4.
        case ("storage", Name(kind), str(key), str(), int(count), *rest) if kind in _DTYPES and not any(rest):
            return _Storage(_DTYPES[kind], key, count, read)
    raise ValueError("it refers to a storage in an unknown way")


def _make_tensor(arguments: tuple) -> _Tensor:
    match arguments:
        # Whether it needs a gradient, its hooks and marks of a conjugate or negative view may follow.
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *rest) if not any(rest[2:]):
            # Strides are checked like shapes: non-negative integers.
            element_count((offset, *shape)), element_count(strides)
            if len(shape) == len(strides):
                return _Tensor(storage, offset, shape, strides)
    raise ValueError("it has a tensor in an unknown format")


def _make_parameter(arguments: tuple) -> _Tensor:
    match arguments:
        case (_Tensor() as tensor, bool(), dict(), *_):  # attributes may follow
            return tensor
    raise ValueError("it has a parameter in an unknown format")


def _make_subclass(arguments: tuple) -> _Tensor:
    """The tensor in a tensor with attributes or of a subclass: function, class, arguments and attributes."""
    match arguments:
        case (Name(dotted), Name(), tuple(inner), *_) if dotted in _TENSORS:
            return _TENSORS[dotted](inner)
    raise ValueError("it has a tensor of a subclass in an unknown format")


_TENSORS: dict[str, Callable[[tuple], _Tensor]] = {
    "torch._utils._rebuild_tensor": _make_tensor,  # before torch 0.4
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_parameter": _make_parameter,
    "torch._utils._rebuild_parameter_with_state": _make_parameter,
}
_TENSOR_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

# Other values of a training checkpoint: settings, the milestones of a schedule, dates, paths. Calls of these
# names become placeholders.
_BUILTINS = ("set", "frozenset", "complex", "bytearray", "slice", "range", "xrange")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_DATES = ("datetime", "date", "time", "timedelta", "timezone")
_IGNORED = (
    *(f"{module}.{name}" for module in ("__builtin__", "builtins") for name in _BUILTINS),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"datetime.{name}" for name in _DATES),
    *("torch.Size", "torch.device", "torch.serialization._get_layout"),
    *("collections.Counter", "argparse.Namespace", "decimal.Decimal", "uuid.UUID"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(f"omegaconf.base.{name}" for name in ("Metadata", "ContainerMetadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Enum")),
)
# Dicts of settings, whose items follow.
_DICTS = (
    *("collections.defaultdict", "easydict.EasyDict", "addict.addict.Dict"),
    *("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict"),
    *(f"{module}.config.CfgNode" for module in ("yacs", "fvcore.common", "detectron2.config")),
    *(
        f"{module}.utilities.parsing.AttributeDict"
        for module in ("pytorch_lightning", "lightning.pytorch", "lightning")
    ),
    *(f"{module}.utilities.data.AttributeDict" for module in ("lightning_fabric", "lightning.fabric")),
)
_TYPES = (
    *(f"{module}.{name}" for module in ("__builtin__", "builtins") for name in ("list", "int", "dict")),
    "typing.Any",
)
_TORCH_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)


# MMEngine's log of training, with methods of its class that it asks for by name.
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"


def _take_method(arguments: tuple) -> Any:
    match arguments:
        case (Name(dotted), str()) if dotted == _HISTORY:
            return ignore(())
    raise ValueError("it asks for an attribute, which could run code and which weights do not need")


_BUILDERS = {
    **NUMPY_BUILDERS,
    **dict.fromkeys((*_DTYPES, *_TENSOR_TYPES), never_called),
    **dict.fromkeys((f"torch.{name}" for name in _TORCH_DTYPES), never_called),
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _make_subclass,
    **dict.fromkeys(_DICTS, lambda arguments: {}),
    **dict.fromkeys(_TYPES, never_called),
    **dict.fromkeys((*_IGNORED, _HISTORY), ignore),
    **dict.fromkeys(("__builtin__.getattr", "builtins.getattr"), _take_method),
}
