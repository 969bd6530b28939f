import io
import pickle
import random
import struct
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.weights.pickles import NUMPY_BUILDERS, Stored, read_pickle

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt"
FLOAT32 = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def read(data: bytes):
    return read_pickle(io.BytesIO(data), NUMPY_BUILDERS)


def arrays_of(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a pickled dict; raises ValueError if the pickle is not a dict."""
    content = read(data)
    if not isinstance(content, dict):
        raise ValueError("no dict")
    return {name: value.array() for name, value in content.items() if isinstance(value, Stored)}


def python2_array(values: np.ndarray, *, shape: bytes = b"K\x02\x85") -> bytes:
    """The instructions by which Python 2 pickles a vector of two float32, with its bytes as a string."""
    raw = values.tobytes()
    return RECONSTRUCT + b"R(K\x01" + shape + FLOAT32 + b"\x89U" + bytes([len(raw)]) + raw + b"tb"


def test_a_pickle_of_python_2_by_hand():
    values = np.array([1.5, -2.0], np.float32)
    entries = b"U\x03w_b" + python2_array(values) + b"U\x04name" + b"U\x02\xe9!"
    content = read(b"\x80\x02}(" + entries + b"u.")
    assert list(content) == ["w_b", "name"] and content["name"] == "é!"
    np.testing.assert_array_equal(content["w_b"].array(), values, strict=True)


ORDERED_DICT = b"ccollections\nOrderedDict\n"
PAIRS = b"](](U\x01aK\x05ee"  # [["a", 5]]


def test_an_ordered_dict_of_python_2():
    assert read(ORDERED_DICT + PAIRS + b"\x85R.") == {"a": 5}


def test_a_list_is_made_into_a_dict_once():
    """Otherwise a small file could fill the memory with copies of it."""
    twice = ORDERED_DICT + PAIRS + b"q\x00\x85R" + ORDERED_DICT + b"h\x00\x85R"
    assert read(twice + b"\x86.") == ({"a": 5}, {})


VALUES = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big endian": np.array([1, 2], ">i4"),
    "half": np.array([0.5], np.float16),
    "no elements": np.zeros((0, 3), np.float32),
    "no axes": np.array(7, np.int64),
    "scalar": np.float32(0.25),
    "bool": np.array([True, False]),
    "all bytes": np.arange(256, dtype=np.uint8),
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(protocol: int):
    arrays = arrays_of(pickle.dumps(OrderedDict(VALUES), protocol))
    assert list(arrays) == list(VALUES)
    for name, value in VALUES.items():
        np.testing.assert_array_equal(arrays[name], value, strict=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(protocol: int):
    value = {
        "a": [1, -(2**40), 2**2000, 0.5, True, None, "é\n"],
        "b": {"c": (), "d": (1, (2, 3), (1, 2, 3, 4))},
    }
    if protocol >= 3:
        value["e"] = b"\x00\xff"
    assert read(pickle.dumps(value, protocol)) == value


def test_entries_whose_keys_are_not_strings_are_dropped():
    nested = b")" + b"q\x00h\x00\x86" * 100  # 100 nested pairs of the same tuple: 2**100 steps to hash
    assert read(b"}" + nested + b"K\x01s" + b"K\x07K\x01s" + b"U\x01aK\x02s.") == {"a": 2}


@pytest.mark.parametrize("value", [{1, 2}, {(1, 2)}, set(), frozenset("ab")])
def test_sets_become_placeholders(value: set | frozenset):
    content = read(pickle.dumps({"a": value, "b": 1}, 4))
    assert content["b"] == 1 and not isinstance(content["a"], set | frozenset)


def test_the_members_of_a_set_are_not_hashed():
    nested = b")" + b"q\x00h\x00\x86" * 100  # 100 nested pairs of the same tuple: 2**100 steps to hash
    for made in (b"(" + nested + b"\x91", b"\x8f(" + nested + b"\x90"):  # FROZENSET; EMPTY_SET, ADDITEMS
        assert read(b"\x80\x04" + made + b"K\x07\x86.")[1] == 7


class Reduced:
    """Pickled as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create the file, or prepare to, and what the error must say."""
    import os
    import subprocess

    command = f"touch {marker}"
    text = command.encode()
    system = Reduced(os.system, command)
    evaluated = Reduced(eval, f"open({str(marker)!r}, 'w')")
    run_string = b"cnumpy.testing._private.utils\nrunstring\n"
    code = f"open({str(marker)!r}, 'w')".encode()
    empty_array = pickle.dumps(np.zeros(2, np.float32), 2)[:-1]
    return {
        "os.system": (pickle.dumps(system), f"'{os.system.__module__}.system'"),
        "os.system, protocol 0": (pickle.dumps(system, 0), f"'{os.system.__module__}.system'"),
        "os.system, by its other name": (b"cos\nsystem\n(V" + text + b"\ntR.", r"'os\.system'"),
        "INST": (b"(V" + text + b"\nios\nsystem\n.", r"'os\.system'"),
        "OBJ": (b"(cos\nsystem\nV" + text + b"\no.", r"'os\.system'"),
        "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.", r"'numpy\.dtype\.__class__'"),
        "eval": (pickle.dumps(evaluated), "'builtins.eval'"),
        "eval, protocol 2": (pickle.dumps(evaluated, 2), "'__builtin__.eval'"),
        "subprocess": (pickle.dumps(Reduced(subprocess.Popen, ["touch", str(marker)])), "'subprocess.Popen'"),
        "numpy.load": (b"cnumpy\nload\n(V" + text + b"\nNI01\ntR.", r"'numpy\.load'"),
        "runstring": (run_string + b"(V" + code + b"\n}tR.", r"'numpy\.testing\._private\.utils\.runstring'"),
        "as a value": (pickle.dumps({"model": {"a": np.zeros(1), "b": system}}), r"\.system'"),
        "as an argument": (pickle.dumps(Reduced(np.dtype, system)), r"\.system'"),
        "getattr": (pickle.dumps(Reduced(getattr, "", "format")), r"'builtins\.getattr'"),
        "torch without torch": (
            b"ctorch._utils\n_rebuild_tensor_v2\n.",
            r"'torch\._utils\._rebuild_tensor_v2'",
        ),
        "a codec": (b"c_codecs\nencode\n(V" + text + b"\nVzip\ntR.", "a codec other than latin1"),
        "a subtype": (RECONSTRUCT.replace(b"cnumpy\nndarray", b"cnumpy\nmatrix") + b"R.", r"'numpy\.matrix'"),
        "a dtype as the subtype": (
            RECONSTRUCT.replace(b"ndarray", b"dtype") + b"R.",
            "other than an ndarray",
        ),
        "a call of ndarray": (b"cnumpy\nndarray\n(K\x09tR.", "only refer to"),
        "a call of a value": (b"V" + text + b"\n)R.", "expected Name, found str"),
        "a call of an array": (empty_array + b")R.", "expected Name, found _Array"),
        "objects": (pickle.dumps(np.array([None, 1])), "'O8'"),
        "a record": (pickle.dumps(np.zeros(1, [("a", "f4")])), "'V4'"),
        "attributes of a function": (
            b"cnumpy\ndtype\nN}V__code__\nNs\x86b.",
            "expected _Stateful, found Name",
        ),
        "attributes of a dtype": (FLOAT32 + b"}Vnames\nNsb.", "not of plain numbers"),
        "attributes of an array": (empty_array + b"}V__class__\nNsb.", "unknown form"),
        "attributes of a list": (b"]}Vappend\nNsb.", "expected _Stateful, found list"),
        "items of a function": (b"cnumpy\ndtype\nVa\nNs.", "expected dict, found Name"),
        "items of an array": (empty_array + b"Na.", "expected list, found _Array"),
        "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "a persistent id": (b"\x80\x02K\x01Q.", "BINPERSID"),
        "a persistent id as text": (b"P1\n.", "PERSID"),
        "a buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    }


@pytest.mark.parametrize("attack", attacks(Path()))
def test_no_attack_runs(tmp_path: Path, attack: str):
    data, message = attacks(tmp_path / "marker")[attack]
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=message):
        read(data)
    assert not (tmp_path / "marker").exists()
    assert set(sys.modules) == modules


def test_the_attacks_work_with_an_unsafe_unpickler(tmp_path: Path):
    """Otherwise the test above would prove nothing."""
    data, _ = attacks(tmp_path / "marker")["os.system"]
    pickle.loads(data)
    assert (tmp_path / "marker").exists()


def test_the_error_says_how_to_save_only_the_weights():
    with pytest.raises(ValueError, match=r"only the weights: torch\.save\(model\.state_dict\(\), \.\.\.\)"):
        read(b"cos\nsystem\n.")


def test_a_name_cannot_control_the_terminal():
    with pytest.raises(ValueError) as error:
        read(b"cos\n\x1b[2J" + b"x" * 1000 + b"\n.")
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "shape", [b"K\x03\x85", b"J\xfe\xff\xff\xff\x85", b"\x88\x85", b"](K\x02e", b"K\x02"]
)
def test_a_shape_that_does_not_match_its_bytes(shape: bytes):
    content = read(b"\x80\x02" + python2_array(np.zeros(2, np.float32), shape=shape) + b".")
    with pytest.raises(ValueError, match=r"with 8 bytes|non-negative integers|plain numbers"):
        content.array()


def test_an_array_without_a_state():
    with pytest.raises(ValueError, match="plain numbers"):
        read(b"\x80\x02" + RECONSTRUCT + b"R.").array()


def test_large_numbers_in_small_files_take_no_memory():
    """Python's own unpickler allocates as many entries or bytes as these files ask for."""
    for data in (
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N.",
    ):
        try:
            assert read(data) is None
        except ValueError as error:
            assert "remain" in str(error)


def mutations(data: bytes, count: int):
    """The data with one to three bits flipped, some of it truncated; deterministic."""
    rng = random.Random(0)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(changed[: rng.randrange(len(data))] if rng.random() < 0.2 else changed)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in a name that the file contains
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_pickles_give_arrays_or_a_value_error(protocol: int):
    data = pickle.dumps({"model": VALUES, **VALUES, "author": ["a", 1.5, None]}, protocol)
    for damaged in mutations(data, 3000):
        try:
            arrays = arrays_of(damaged)
        except ValueError:
            continue
        assert all(type(array) is np.ndarray and array.dtype != object for array in arrays.values())


def test_every_truncation_is_an_error():
    data = pickle.dumps(VALUES, 2)
    for end in range(len(data)):
        with pytest.raises(ValueError):
            read(data[:end])
