"""The floors of the house (CONTRIBUTING.md): imports go down, never up and never in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module or package and its floor. The first entry that a name starts with holds.
FLOORS = {
    "mrcnn_jax.types": 0,
    "mrcnn_jax.images": 0,
    "mrcnn_jax.image_formats": 0,
    "mrcnn_jax.image_names": 0,
    "mrcnn_jax.image_size": 0,
    "mrcnn_jax.pixels": 0,
    "mrcnn_jax.channel_files": 0,
    "mrcnn_jax.image_windows": 0,
    "mrcnn_jax.video_files": 0,
    "mrcnn_jax.rle": 0,
    "mrcnn_jax.json_files": 0,
    "mrcnn_jax.yaml_files": 0,
    "mrcnn_jax.file_locks": 0,
    "mrcnn_jax.proposals": 0,
    "mrcnn_jax.proposal_records": 0,
    "mrcnn_jax.config": 0,
    "mrcnn_jax.runtime": 0,
    "mrcnn_jax.ops": 1,
    "mrcnn_jax.runs": 1,
    "mrcnn_jax.distributed": 1,
    "mrcnn_jax.data": 1,
    "mrcnn_jax.models": 2,
    "mrcnn_jax.inference": 3,
    "mrcnn_jax.weights": 3,
    "mrcnn_jax.evaluation": 4,
    "mrcnn_jax.tool_formats": 4,
    "mrcnn_jax.export.runner": 0,
    "mrcnn_jax.export": 4,
    "mrcnn_jax.serving": 4,
    "mrcnn_jax.many_images": 4,
    "mrcnn_jax.training": 5,
    "mrcnn_jax.compile_report": 6,
    "mrcnn_jax.report": 6,
    "mrcnn_jax.paper": 6,
    "mrcnn_jax.command_line": 6,
    "mrcnn_jax.commands": 6,
    "mrcnn_jax.benchmarks": 6,
    "mrcnn_jax.walkthrough": 6,
    "mrcnn_jax.configs": 6,
    "mrcnn_jax": 6,
    "scripts": 6,
}

# What a part must not know although it lies on a lower floor, or on its own.
UNKNOWN = [
    ("mrcnn_jax.ops", "mrcnn_jax.config"),
    ("mrcnn_jax.ops", "mrcnn_jax.data"),
    ("mrcnn_jax.models", "mrcnn_jax.data"),
    ("mrcnn_jax.inference", "mrcnn_jax.data"),
]

# Libraries, and the only parts that may import them.
LIBRARIES = {
    "tensorflow": ("mrcnn_jax.data.tensorflow", "mrcnn_jax.export.saved_model"),
    "tensorflow_datasets": ("mrcnn_jax.data.tensorflow",),
    "orbax": ("mrcnn_jax.runs.checkpoint",),
    "hotcoco": ("mrcnn_jax.evaluation",),
    "pycocotools": ("mrcnn_jax.evaluation", "mrcnn_jax.benchmarks"),
    "av": ("mrcnn_jax.video_files",),
    "trackers": ("mrcnn_jax.inference.tracks",),
    "starlette": ("mrcnn_jax.serving",),
    "prometheus_client": ("mrcnn_jax.serving",),
    "pyarrow": ("mrcnn_jax.many_images",),
    "ray": ("mrcnn_jax.many_images.ray_cluster",),
    "uvicorn": ("mrcnn_jax.commands.serve",),
    "wandb": ("mrcnn_jax.training.writers",),
    "mlflow": ("mrcnn_jax.training.writers",),
    "onnx": ("mrcnn_jax.export.onnx_graph", "mrcnn_jax.export.onnx_file"),
    "onnxruntime": ("mrcnn_jax.export.runner.onnx_model", "mrcnn_jax.benchmarks.peers"),
    "openvino": ("mrcnn_jax.benchmarks.peers",),
    "torch": ("mrcnn_jax.benchmarks.peers",),
    "torchvision": ("mrcnn_jax.benchmarks.peers",),
}

# Packages that work under another name, too, and so import their own modules by relative names.
COPIED = ("mrcnn_jax.export.runner",)

# Imports inside a function that close a circle, and why.
LATE = {
    ("mrcnn_jax.inference.results", "mrcnn_jax.inference.draw"),  # a result draws itself: Result.plot
}


def is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def floor(module: str) -> int:
    floors = [floor for part, floor in FLOORS.items() if is_in(module, part)]
    return floors[0] if floors else 0


def imported(source: str, modules: set[str], package: str = "") -> set[str]:
    """The modules that a source imports: of ``from a import b``, a.b where ``modules`` has it, else a.

    Imports relative to the source's ``package`` are allowed in COPIED ones alone.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level or (node.level == 1 and package in COPIED), (
                f"line {node.lineno}: a relative import hides the floor"
            )
            module = ".".join(filter(None, (package if node.level else "", node.module)))
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                names.add(inner if inner in modules else module)
    return names


def broken_rules(imports: dict[str, set[str]]) -> list[str]:
    """What is wrong in the imports of each module, in words."""
    broken = []
    for module, names in imports.items():
        for name in sorted(names & set(imports)):
            if floor(name) > floor(module):
                broken.append(f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})")
            if any(is_in(module, part) and is_in(name, other) for part, other in UNKNOWN):
                broken.append(f"{module} must know nothing of {name}")
        for library, allowed in LIBRARIES.items():
            if any(is_in(name, library) for name in names) and not any(
                is_in(module, part) for part in allowed
            ):
                broken.append(f"{module} imports {library}")
    return broken + [" imports ".join(circle) for circle in circles(imports)]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    found, finished = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in finished:
            for name in sorted(imports[module] & set(imports)):
                if (module, name) not in LATE:
                    visit(name, [*path, module])
            finished.add(module)

    for module in imports:
        visit(module, [])
    return found


@pytest.mark.parametrize(
    ("imports", "broken"),
    [
        (
            {"mrcnn_jax.ops.boxes": {"mrcnn_jax.models.fpn"}, "mrcnn_jax.models.fpn": set()},
            ["mrcnn_jax.ops.boxes (floor 1) imports mrcnn_jax.models.fpn (floor 2)"],
        ),
        (
            {"mrcnn_jax.ops.boxes": {"mrcnn_jax.config"}, "mrcnn_jax.config": set()},
            ["mrcnn_jax.ops.boxes must know nothing of mrcnn_jax.config"],
        ),
        (
            {"mrcnn_jax.ops.nms": {"mrcnn_jax.ops.boxes"}, "mrcnn_jax.ops.boxes": {"mrcnn_jax.ops.nms"}},
            ["mrcnn_jax.ops.nms imports mrcnn_jax.ops.boxes imports mrcnn_jax.ops.nms"],
        ),
        (
            {"mrcnn_jax.data.coco": {"tensorflow.data", "pycocotools.mask"}},
            ["mrcnn_jax.data.coco imports tensorflow", "mrcnn_jax.data.coco imports pycocotools"],
        ),
        ({"scripts.train": {"torch"}}, ["scripts.train imports torch"]),
        (
            {"mrcnn_jax.data.tensorflow": {"tensorflow"}, "mrcnn_jax.runs.checkpoint": {"orbax.checkpoint"}},
            [],
        ),
        ({"mrcnn_jax.ops.nms": {"mrcnn_jax.ops.boxes"}, "mrcnn_jax.ops.boxes": {"jax.numpy"}}, []),
    ],
)
def test_the_rules_find_what_breaks_them(imports, broken):
    assert broken_rules(imports) == broken


def test_imported_finds_modules_behind_names_and_inside_functions():
    source = """
import jax.numpy as jnp
from mrcnn_jax.ops import boxes
from mrcnn_jax.ops.nms import nms
def f():
    from torch import nn
"""
    modules = {"mrcnn_jax.ops", "mrcnn_jax.ops.boxes", "mrcnn_jax.ops.nms"}
    assert imported(source, modules) == {"jax.numpy", "mrcnn_jax.ops.boxes", "mrcnn_jax.ops.nms", "torch"}


def test_relative_imports_are_for_copied_packages():
    (package,) = COPIED
    modules = {package, f"{package}.pasting"}
    assert imported("from .pasting import to_rle", modules, package) == {f"{package}.pasting"}
    assert imported("from . import pasting, load", modules, package) == modules
    for source, place in (
        ("from .pasting import to_rle", "mrcnn_jax.inference"),
        ("from ..programs import a", package),
    ):
        with pytest.raises(AssertionError, match="line 1: a relative import hides the floor"):
            imported(source, modules, place)


def test_imports_go_down():
    parts = "mrcnn_jax", "mrcnn_jax/configs", "mrcnn_jax/benchmarks", "scripts"  # two of them are links
    paths = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    sources, packages = {}, {}
    for path in paths:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        name = f"{package}.{path.stem}".removesuffix(".__init__")
        sources[name], packages[name] = path.read_text(encoding="utf-8"), package
    assert len(sources) > 10
    imports = {name: imported(source, set(sources), packages[name]) for name, source in sources.items()}
    assert imports["mrcnn_jax.export.runner.pasting"] >= {"mrcnn_jax.export.runner.resizing"}
    assert broken_rules(imports) == []
