"""The commands: ``mrcnn-jax train`` is ``commands/train.py``, and so is ``scripts/train.py`` in a clone.

A module of this package is one command: its docstring is the help, its flags are defined when it is
imported, ``main`` takes the positional arguments, which ``ARGUMENTS`` describes if there may be any. Only one
of them is imported in a process, as several have flags of the same name.
"""

import ast
import importlib
import sys
from pathlib import Path

import mrcnn_jax
from mrcnn_jax import command_line

COMMANDS = (
    *("shapes", "train", "evaluate", "report", "predict", "predict_many", "serve", "convert", "prepare"),
    *("export", "propose", "show", "to_coco", "from_coco", "distill", "zoo", "reproduce", "compile_report"),
)
BENCHMARKS = ("speed", "profile", "roi", "growth", "data", "serve", "predict_many")


def main() -> None:
    """The program ``mrcnn-jax``: runs the command that its first argument names."""
    match sys.argv[1:]:
        case [] | ["--help" | "-help" | "-h", *_]:
            print(_usage())
        case ["--version", *_]:
            print(f"mrcnn_jax {mrcnn_jax.__version__}")
        case ["benchmark", name, *_] if name in BENCHMARKS:
            del sys.argv[1:3]
            _run(f"mrcnn_jax.benchmarks.{name}")
        case ["benchmark"] | ["benchmark", "--help" | "-help" | "-h", *_]:
            print(_benchmark_usage())
        case ["benchmark", name, *_]:
            sys.exit(f"error: unknown benchmark {name!r}; see mrcnn-jax benchmark --help")
        case [name, *_] if name in COMMANDS:
            del sys.argv[1]
            run(name)
        case [name, *_]:
            sys.exit(f"error: unknown command {name!r}; see mrcnn-jax --help")


def run(name: str) -> None:
    """Runs a command of ``COMMANDS`` with the flags in ``sys.argv``, and exits with its code."""
    _run(f"mrcnn_jax.commands.{name}")


def _run(module: str) -> None:
    command = importlib.import_module(module)
    command_line.run(command.main, positional=getattr(command, "ARGUMENTS", ""))


def _usage() -> str:
    return f"""\
mrcnn-jax COMMAND ...: Mask R-CNN in JAX

{_list(COMMANDS, Path(__file__).parent)}
  benchmark       Measures speed: {", ".join(BENCHMARKS)}

mrcnn-jax COMMAND --help describes a command and its flags."""


def _benchmark_usage() -> str:
    return f"""\
mrcnn-jax benchmark NAME ...: measures speed on this machine

{_list(BENCHMARKS, Path(__file__).parents[1] / "benchmarks")}

mrcnn-jax benchmark NAME --help describes a benchmark and its flags."""


def _list(names: tuple[str, ...], folder: Path) -> str:
    """The modules with the first lines of their docstrings, read without defining their flags."""
    lines = []
    for name in names:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        lines.append(f"  {name:<15} {summary}")
    return "\n".join(lines)
