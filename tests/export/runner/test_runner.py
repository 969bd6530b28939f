"""The runner as a package of its own: what it needs, and copies of it outside mrcnn_jax."""

import ast
import importlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mrcnn_jax
from mrcnn_jax.export import runner
from tests.export.stand_in import write_stand_in

FOLDER = Path(runner.__file__).parent
NEEDS = {
    "runner/__init__.py": set(),
    "runner/detector.py": {"numpy"},
    "runner/mrcnn_model.py": {"jax", "numpy"},
    "runner/onnx_model.py": {"numpy", "onnxruntime"},
    "runner/pasting.py": {"numpy"},
    "runner/resizing.py": {"numpy"},
    "command.py": {"numpy", "runner", "PIL"},
}


def imported(nodes):
    """The packages that these nodes import, apart from Python's and, by relative names, the runner's own."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            names |= set() if node.level else {node.module.partition(".")[0]}
    return names - sys.stdlib_module_names


@pytest.mark.parametrize("file", NEEDS)
def test_what_they_need(file):
    """Only NumPy is imported at once; jax, ONNX Runtime and Pillow are when they are used."""
    source = (FOLDER.parent / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert imported(ast.walk(tree)) == NEEDS[file]
    assert imported(tree.body) <= {"numpy", "runner"}
    assert len(source.splitlines()) < 150


def test_what_every_module_needs_is_known():
    assert set(NEEDS) == {"command.py", *(f"runner/{path.name}" for path in FOLDER.glob("*.py"))}


@pytest.fixture
def imports(monkeypatch):
    """Imports the package ``runner`` from a place; afterwards it is forgotten."""

    def import_from(place):
        monkeypatch.syspath_prepend(place)
        copy = importlib.import_module("runner")
        assert Path(copy.__file__) == place / "runner" / "__init__.py" and copy.load is not runner.load
        return copy

    yield import_from
    for name in [name for name in sys.modules if name.partition(".")[0] == "runner"]:
        del sys.modules[name]


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_files_copy_finds_the_same(tiny_config, tmp_path, imports, unpacked):
    """Imported from the archive itself, and from a folder into which it was unpacked."""
    path = write_stand_in(tmp_path / "model.mrcnn", tiny_config)
    place = tmp_path / "unpacked" if unpacked else path
    if unpacked:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(place, [name for name in archive.namelist() if name.startswith("runner/")])
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (found,), expected = imports(place).load(str(path))([image]), mrcnn_jax.load(path)(image)
    np.testing.assert_array_equal(found["boxes"], expected.boxes, strict=True)
    assert len(expected) > 0 and found["segmentations"] == expected.segmentations


def test_a_file_from_before_the_runner_was_a_folder(tiny_config, tmp_path):
    path, old = write_stand_in(tmp_path / "model.mrcnn", tiny_config), tmp_path / "old.mrcnn"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(old, "w") as written:
        for name in archive.namelist():
            if not name.startswith("runner/"):
                written.writestr(name, archive.read(name))
        written.writestr("runner.py", "raise AssertionError")
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (found,), (expected,) = (runner.load(str(file))([image]) for file in (old, path))
    assert len(expected["names"]) > 0 and found["segmentations"] == expected["segmentations"]
