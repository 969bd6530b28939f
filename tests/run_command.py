"""Runs command lines for tests: in this process, which is quick, or in a separate one."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from absl import flags

ROOT = Path(__file__).parents[1]


class Outcome(NamedTuple):
    """A command's exit code and output."""

    returncode: int
    stdout: str
    stderr: str


def run_here(command: str, *arguments: str, directory: Path) -> Outcome:
    """Runs a command of ``mrcnn-jax``, or the program at a path, in this process.

    It has its own flags, environment and working directory, but this process's devices. It never joins other
    hosts, and leaves the C library's memory settings as they are.
    """
    from mrcnn_jax import commands  # defines command_line's flags once, on import; they stay

    known = set(flags.FLAGS)
    out, err = io.StringIO(), io.StringIO()
    argv = [command, *arguments] if command.endswith(".py") else ["mrcnn-jax", command, *arguments]
    with (
        contextlib.chdir(directory),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ),
        mock.patch("mrcnn_jax.runtime.setup.keep_freed_memory"),
        mock.patch("mrcnn_jax.distributed.hosts.join"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # as in a separate process
        try:
            if command.endswith(".py"):
                runpy.run_path(command, run_name="__main__")
            else:
                commands.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            if isinstance(exit_.code, str):
                print(exit_.code, file=sys.stderr)
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            for name in commands.COMMANDS:  # they define flags when they are imported
                sys.modules.pop(f"mrcnn_jax.commands.{name}", None)
            for name in commands.BENCHMARKS:
                sys.modules.pop(f"mrcnn_jax.benchmarks.{name}", None)
            forget_flags({name for name in set(flags.FLAGS) - known if not _is_a_librarys(name)})
    return Outcome(code, out.getvalue(), err.getvalue())


def _is_a_librarys(name: str) -> bool:
    """Whether a library defined the flag, which it does only once, on import."""
    is_override = name.startswith("config.")  # defined by ml_collections, for one program
    return not is_override and flags.FLAGS.find_module_defining_flag(name) in sys.modules


def forget_flags(names: set[str]) -> None:
    """Undefines flags, so that the next program can define its own of the same names."""
    for name in names:
        # An alias goes with its flag.
        with contextlib.suppress(AttributeError, flags.UnrecognizedFlagError):
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


def run_apart(command: str, *arguments: str, directory: Path, python: tuple[str, ...] = ()) -> Outcome:
    """Runs the same command in a separate process, on one device."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, *python, "-m", "mrcnn_jax", command, *arguments],
        cwd=directory,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_killed(program: str, *arguments: str, directory: Path) -> None:
    """Runs the source of a program, on this process's number of devices, which must kill itself."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
