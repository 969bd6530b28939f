import io
import itertools
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from mrcnn_jax.weights.pickles import Stored
from mrcnn_jax.weights.torch_files import read_torch


class Called:
    """Pickled as a call of a dotted name, which need not exist; without arguments, as the name itself."""

    def __init__(self, dotted: str, *arguments):
        self.module, _, self.name = dotted.rpartition(".")
        self.arguments = arguments


class Pickler(pickle._Pickler):
    """A pickler for ``Called``; like torch, it writes tuples that start with "storage" as persistent ids."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

    def save(self, value, save_persistent_id=True):
        if not isinstance(value, Called):
            return super().save(value, save_persistent_id)
        self.write(f"c{value.module}\n{value.name}\n".encode())
        if value.arguments:
            self.save(value.arguments)
            self.write(pickle.REDUCE)


def pickled(value) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def storage(count: int, *, kind: str = "torch.FloatStorage", key: str = "0") -> tuple:
    return ("storage", Called(kind), key, "cpu", count)


def tensor(count: int, shape: tuple, strides: tuple, *, offset: int = 0, **options) -> Called:
    arguments = (storage(count, **options), offset, shape, strides, False, {})
    return Called("torch._utils._rebuild_tensor_v2", *arguments)


def zipped(value, **storages: bytes) -> bytes:
    """A file in torch's zip format; storages are named ``data_<key>``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        for name, content in storages.items():
            archive.writestr(f"archive/{name.replace('_', '/')}", content)
    return stream.getvalue()


def legacy(value, keys: list, blocks: bytes, *, start: tuple = (0x1950A86A20F9469CFC6C, 1001)) -> bytes:
    """A file in the format before torch 1.6."""
    parts = (*start, {"protocol_version": 1001, "little_endian": True}, value, keys)
    return b"".join(map(pickled, parts)) + blocks


SIX = np.arange(6, dtype="<f4")


def test_views_of_a_storage_by_hand():
    content = read_torch(
        zipped(
            {
                "all": tensor(6, (2, 3), (3, 1)),
                "turned": tensor(6, (3, 2), (1, 3)),
                "last": tensor(6, (), (), offset=5),
            },
            data_0=SIX.tobytes(),
        )
    )
    np.testing.assert_array_equal(content["all"].array(), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(content["turned"].array(), [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(content["last"].array(), 5)


def test_the_older_format_by_hand():
    value = {
        "a": tensor(2, (2,), (1,), kind="torch.LongStorage", key="9"),
        "b": tensor(1, (1,), (1,), key="10"),
    }
    long = (2).to_bytes(8, "little") + np.array([1, -1], "<i8").tobytes()
    single = (1).to_bytes(8, "little") + np.array([0.5], "<f4").tobytes()
    content = read_torch(legacy(value, ["9", "10"], long + single))
    np.testing.assert_array_equal(content["a"].array(), np.array([1, -1]), strict=True)
    np.testing.assert_array_equal(content["b"].array(), np.array([0.5], np.float32), strict=True)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((), (), 6),
        ((1,), (1,), 2**62),
        ((5, 1), (2**62, 1), 0),  # NumPy's own check overflows, and reading it ends the process
        ((5, 1), (2**63, 1), 0),
        ((100,), (0,), 0),  # broadcasts
        ((2**40, 2**40), (0, 0), 0),
    ],
)
def test_a_tensor_must_lie_in_its_storage(shape: tuple, strides: tuple, offset: int):
    with pytest.raises(ValueError, match=r"not lie in its storage of 6 elements|non-negative integers"):
        content = read_torch(zipped({"a": tensor(6, shape, strides, offset=offset)}, data_0=SIX.tobytes()))
        content["a"].array()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2,), (-1,), 1), "at most 32 dimensions, all non-negative integers"),
        (((-2,), (1,), 0), "at most 32 dimensions, all non-negative integers"),
        (((2,), (1,), -1), "at most 32 dimensions, all non-negative integers"),
        (((2.0,), (1,), 0), "at most 32 dimensions, all non-negative integers"),
        (((1,) * 33, (1,) * 33, 0), "at most 32 dimensions, all non-negative integers"),
        (((2, 3), (1,), 0), "unknown format"),
        (((2,), (1,), "0"), "unknown format"),
    ],
)
def test_a_malformed_tensor(arguments: tuple, message: str):
    shape, strides, offset = arguments
    with pytest.raises(ValueError, match=message):
        read_torch(zipped({"a": tensor(6, shape, strides, offset=offset)}, data_0=SIX.tobytes()))


def test_a_tensor_without_elements():
    content = read_torch(zipped({"a": tensor(0, (0, 3), (3, 1))}, data_0=b""))
    assert content["a"].array().shape == (0, 3)


@pytest.mark.parametrize("count", [2**40, 7, 5, -1])
def test_a_storage_must_have_its_bytes(count: int):
    content = read_torch(zipped({"a": tensor(count, (1,), (1,))}, data_0=SIX.tobytes()))
    with pytest.raises(ValueError, match=f"a storage of {count} float32 has 24 bytes"):
        content["a"].array()


def test_storages_of_an_unknown_kind():
    with pytest.raises(ValueError, match="it holds quantised tensors"):
        read_torch(zipped({"a": tensor(6, (6,), (1,), kind="torch.QInt8Storage")}, data_0=SIX.tobytes()))
    with pytest.raises(ValueError, match=r"refers to 'torch\.OtherStorage'"):
        read_torch(zipped({"a": tensor(6, (6,), (1,), kind="torch.OtherStorage")}, data_0=SIX.tobytes()))
    with pytest.raises(ValueError, match="a storage in an unknown way"):
        read_torch(zipped({"a": tensor(6, (6,), (1,), kind="collections.OrderedDict")}, data_0=SIX.tobytes()))
    # A view of another storage, before torch 0.4.
    with pytest.raises(ValueError, match="a storage in an unknown way"):
        read_torch(zipped({"a": (*storage(6), ("1", 0, 6))}))


@pytest.mark.parametrize(
    "dotted", ["torch.load", "torch.jit._pickle.build_intlist", "os.system", "builtins.exec"]
)
def test_other_functions_are_rejected(dotted: str):
    message = rf"refers to '{dotted}'.*torch\.save\(model\.state_dict\(\), \.\.\.\)"
    with pytest.raises(ValueError, match=message):
        read_torch(zipped({"a": tensor(6, (6,), (1,)), "b": Called(dotted, "x")}, data_0=SIX.tobytes()))
    with pytest.raises(ValueError, match=message):
        read_torch(legacy({"b": Called(dotted, "x")}, [], b""))
    with pytest.raises(ValueError, match=message):  # in the first pickle, and in the last
        read_torch(legacy({}, [], b"", start=(Called(dotted, "x"), 1001)))
    with pytest.raises(ValueError, match=message):
        read_torch(legacy({}, [Called(dotted, "x")], b""))


def test_other_contents_of_a_training_checkpoint():
    content = read_torch(
        zipped(
            {
                "model": {"a": Called("torch._utils._rebuild_parameter", tensor(6, (6,), (1,)), True, {})},
                "lr_scheduler": {
                    "milestones": Called("collections.Counter", {16: 1, 22: 1}),
                    "last_epoch": 3,
                },
            },
            data_0=SIX.tobytes(),
        )
    )
    assert isinstance(content["model"]["a"], Stored)
    np.testing.assert_array_equal(content["model"]["a"].array(), SIX)
    assert content["lr_scheduler"]["last_epoch"] == 3


@pytest.mark.parametrize(
    "dotted",
    [
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "yacs.config.CfgNode",
        "detectron2.config.config.CfgNode",
        "easydict.EasyDict",
    ],
)
def test_settings_in_dicts_of_libraries_are_read_as_dicts(dotted: str, monkeypatch: pytest.MonkeyPatch):
    module, _, name = dotted.rpartition(".")
    kind = type(name, (dict,), {"__module__": module})
    for package in itertools.accumulate(module.split("."), "{}.{}".format):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
    settings = kind(lr=0.1)
    settings.attribute = 1
    value = {"state_dict": {"a": tensor(6, (6,), (1,))}, "hyper_parameters": settings}
    content = read_torch(zipped(value, data_0=SIX.tobytes()))
    assert content["hyper_parameters"] == {"lr": 0.1} and type(content["hyper_parameters"]) is dict
    np.testing.assert_array_equal(content["state_dict"]["a"].array(), SIX)


REBUILD = "torch._tensor._rebuild_from_type_v2"


def test_tensors_with_attributes_and_of_subclasses():
    inner = (storage(6), 0, (6,), (1,), False, {})
    function = Called("torch._utils._rebuild_tensor_v2")
    for kind in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        value = Called(REBUILD, function, Called(kind), inner, {"note": "x"})
        content = read_torch(zipped({"a": value}, data_0=SIX.tobytes()))
        np.testing.assert_array_equal(content["a"].array(), SIX)
    for other, kind in ((Called("torch.Size"), "torch.Tensor"), (function, "project.Tensor")):
        with pytest.raises(ValueError, match=r"subclass in an unknown format|refers to 'project\.Tensor'"):
            read_torch(zipped({"a": Called(REBUILD, other, Called(kind), inner, {})}))


def test_a_negative_view_is_not_read_with_the_wrong_sign():
    view = Called("torch._utils._rebuild_tensor_v2", storage(6), 0, (6,), (1,), False, {}, {"neg": True})
    with pytest.raises(ValueError, match="a tensor in an unknown format"):
        read_torch(zipped({"a": view}, data_0=SIX.tobytes()))


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("torch.distributed.tensor.DTensor", "one part of a sharded checkpoint"),
        ("torch.distributed._shard.sharded_tensor.api.ShardedTensor", "one part of a sharded checkpoint"),
        ("deepspeed.runtime.zero.config.ZeroStageEnum", r"zero_to_fp32\.py"),
        ("mmdet.structures.DetDataSample", "it holds an object of MMDetection or a related project"),
        ("ultralytics.nn.tasks.DetectionModel", "it is a YOLO model"),
        ("__torch__.torch.nn.modules.linear.Linear", "it is a TorchScript program"),
        ("torch.ao.nn.quantized.modules.linear.Linear", "it holds quantised tensors"),
    ],
)
def test_formats_that_cannot_be_converted(dotted: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_torch(zipped({"a": Called(dotted, "x")}))


def test_only_methods_of_a_training_log_are_asked_for():
    log = "mmengine.logging.history_buffer.HistoryBuffer"
    content = read_torch(zipped({"a": Called("builtins.getattr", Called(log), "mean"), "b": 1}))
    assert content["b"] == 1
    for arguments in ((Called("torch.Tensor"), "mean"), (1, "real"), (Called(log),)):
        with pytest.raises(ValueError, match="it asks for an attribute, which could run code"):
            read_torch(zipped({"a": Called("__builtin__.getattr", *arguments)}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "does not start like a torch.save file"),
        (pickle.dumps({"a": 1}), "does not start like a torch.save file"),
        (legacy({}, [], b"", start=(1, 1001)), "does not start like a torch.save file"),
        (legacy({"a": tensor(2, (2,), (1,))}, ["0"], b"\x02" + bytes(7) + bytes(7)), "truncated or damaged"),
        (legacy({"a": tensor(2, (2,), (1,))}, ["0"], b"\x03" + bytes(7) + bytes(12)), "truncated or damaged"),
        (
            legacy({"a": tensor(2**60, (2,), (1,))}, ["0"], (2**60).to_bytes(8, "little")),
            "truncated or damaged",
        ),
    ],
)
def test_files_of_another_kind_and_truncated_files(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        read_torch(data)


def test_zip_archives_of_another_kind():
    with pytest.raises(ValueError, match=r"without the data\.pkl of a torch file"):
        read_torch(zipped({}).replace(b"data.pkl", b"else.pkl"))
    with pytest.raises(ValueError, match="big-endian"):
        read_torch(zipped({}, byteorder=b"big"))
