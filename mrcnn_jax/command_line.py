"""Shared by the commands: the ``--config`` flag, flags for several hosts, and one-line error messages.

A command is a module, see ``commands/__init__.py``, that reads:

    _config = command_line.define_config()

    def main(arguments: list[str]) -> None:
        setup()  # from mrcnn_jax.runtime.setup
        ...  # slow imports go here, so that --help and mistyped flags respond immediately

and that ``command_line.run(main)`` runs. Only programs that own their process import this module: importing
the library, or calling ``mrcnn_jax.load``, changes no process-wide setting.
"""

import faulthandler
import io
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.io import flatten, from_dict, validate
from mrcnn_jax.config.suggestions import suggest
from mrcnn_jax.distributed.launchers import may_have_peers
from mrcnn_jax.runtime.interrupts import interruptible
from mrcnn_jax.runtime.setup import setup

if TYPE_CHECKING:
    from mrcnn_jax.data.own_augment import Augment

_T = TypeVar("_T")

# Attribute the flags defined here to the calling command, so that its --help lists them.
flags.disclaim_key_flags()

_DEBUG = flags.DEFINE_bool("debug", False, "show the full traceback of an error")

_CONFIGS = Path(__file__).with_name("configs")
_FROM_YAML = Path(__file__).parent / "config" / "detectron2" / "get_config.py"
_CONFIG_FILE = re.compile(r"--?config(?:=(?P<path>.*))?")
_OVERRIDE = re.compile(r"--?(?:no)?config\.(?P<name>[^=]+)")


def define_config(default: Path | None = None) -> Callable[[], Config]:
    """A function that returns the config of ``--config=FILE``, with all ``--config.FIELD=VALUE`` applied.

    FILE may also be the name of one of this project's configs, ``torchvision/mask_rcnn_r50_fpn``, or a YAML
    file of Detectron2. ``--config=FILE:WORD`` calls the file's ``get_config("WORD")``.

    Call this at the top of a command, and the returned function in ``main``. The latter raises ValueError if
    the flag is missing and has no ``default``, or if the file's ``get_config`` returns something other than a
    ``Config`` or one that ``validate`` rejects.
    """
    flag = config_flags.DEFINE_config_file(
        "config",
        None if default is None else str(default),
        "file that defines get_config(), or the name of a config of this project, such as shapes or "
        "torchvision/mask_rcnn_r50_fpn, or a .yaml file of Detectron2 (docs/zoo.md); "
        "--config.train.steps=100 changes one of its fields",
    )

    def config() -> Config:
        if flag.value is None:
            raise ValueError("--config is missing; see --help")
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        if not isinstance(flag.value, Config):
            raise ValueError(f"{path}: get_config() returned {type(flag.value).__name__}; must be a Config")
        values = from_dict(to_dict(flag.value))
        validate(values)
        return values

    return config


def define_overrides() -> Callable[[Config], Config]:
    """A function that applies overrides like ``--config.test.detections=10`` to a given config.

    For commands that take their config from a saved run. Call this at the top of the command, and the
    returned function in ``main``. The latter raises ValueError if ``validate`` rejects the result.
    """
    with _plain_errors():  # ml_collections parses the command line already when the flag is defined
        _check_config_flags(sys.argv)
        flag = config_flags.DEFINE_config_dataclass(
            "config", Config(), "--config.test.detections=10 changes a field of the saved config"
        )
    flags.FLAGS[flag.name].default_as_str = None  # keeps all fields of the config out of --help

    def override(config: Config) -> Config:
        values = to_dict(config)
        for name, value in config_flags.get_override_values(flags.FLAGS["config"]).items():
            section, field = name.split(".")
            values[section][field] = value
        changed = from_dict(values)
        validate(changed)
        return changed

    return override


def define_hosts(
    *, handle_sigterm: bool, keep_memory: bool = True
) -> Callable[[Callable[[], _T]], AbstractContextManager[_T]]:
    """A function that joins this process to a run, by calling ``hosts.join`` with the flags defined here.

    Call this at the top of a command, and the returned function in ``main`` around the block that uses JAX:
    ``with hosts(prepare) as prepared: ...``. ``prepare`` is called first, so that what is missing is reported
    before JAX is imported, which takes seconds; its ValueError or OSError ends all processes of the run. Then
    the process is set up (see ``runtime.setup``, also for ``keep_memory``).

    If there are other processes, an error in the block ends this process immediately; otherwise JAX would
    wait for the others at exit, and they for this one.
    """
    coordinator = flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, for runs of several processes that JAX cannot detect"
    )
    num_processes = flags.DEFINE_integer("num_processes", None, "number of processes", lower_bound=1)
    process_id = flags.DEFINE_integer("process_id", None, "index of this process, from 0", lower_bound=0)

    @contextmanager
    def joined(prepare: Callable[[], _T]) -> Iterator[_T]:
        problem: Exception | None = None
        try:
            prepared = prepare()
        except (ValueError, OSError) as error:
            if coordinator.value is None and not may_have_peers():
                raise
            problem = error
        setup(keep_memory=keep_memory)
        from mrcnn_jax.distributed import hosts

        hosts.join(coordinator.value, num_processes.value, process_id.value, handle_sigterm=handle_sigterm)
        if hosts.is_single_process():
            if problem:
                raise problem
            yield prepared
            return
        faulthandler.disable()  # if JAX aborts the process it says why; the Python stack would add nothing
        try:
            with _plain_errors(), hosts.explain_lost_process():
                with hosts.fail_together():
                    if problem:
                        raise problem
                yield prepared
        except BaseException as error:
            try:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:  # also if nobody reads the output any more
                os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)

    return joined


def define_step() -> flags.FlagHolder[int | Literal["best"] | None]:
    """The flag ``--step``, with a value for ``mrcnn_jax.load``. Call this at the top of a command."""
    return flags.DEFINE(
        _StepParser(),
        "step",
        None,
        'checkpoint to use: its step, or "best" for the best one evaluated in training; default: the newest',
    )


def define_batch_sizes(description: str) -> Callable[[], list[int]]:
    """The flag ``--batch_sizes``, and a function that returns its numbers, each once, smallest first.

    Call this at the top of a command, and the returned function in ``main``.
    """
    flag = flags.DEFINE_list("batch_sizes", ["1"], description)

    def batch_sizes() -> list[int]:
        for text in flag.value:
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"--batch_sizes={text}: must be numbers from 1, such as 1,4")
        return sorted({int(text) for text in flag.value})

    return batch_sizes


def define_augment() -> "Callable[[], Augment | None]":
    """The flag ``--augment``, and a function that returns the function that it names, or None.

    Call this at the top of a command, and the returned function in ``main``: it runs the file.
    """
    flag = flags.DEFINE_string(
        "augment",
        None,
        "a function of yours that changes training images and their objects, as FILE.py:FUNCTION "
        "(docs/data.md); the file is run, so it must be one that you trust",
    )

    def augment() -> "Augment | None":
        if flag.value is None:
            return None
        from mrcnn_jax.data.own_augment import load_augment

        return load_augment(flag.value)

    return augment


def run(main: Callable[[list[str]], int | None], *, positional: str = "") -> None:
    """Calls ``main`` with the positional arguments, and exits with the code it returns.

    ``positional`` describes these arguments in the help; without it there must be none. A ValueError, OSError
    or FloatingPointError (a loss that is not finite) is printed to stderr as ``error: ...``, followed by a
    line that mentions ``--debug``, which shows the traceback instead; the exit code is 1. It is also 1 if
    the reader of the output closes it (``| head``), but without a message. Ctrl-C exits with 130.
    """
    # A name that the terminal has no characters for, or that is no UTF-8, is escaped, as on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Set before TensorFlow and XLA are loaded: their C++ logs below the error level are not actionable.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-help", "-h"} & set(argv):
            _print_help(main.__module__, positional)
            sys.stdout.flush()
            sys.exit(0)
        argv[:] = _with_config_paths(argv)  # in place: ml_collections reads sys.argv
        _check_config_flags(argv)
        arguments = flags.FLAGS(argv)[1:]
        if arguments and not positional:
            raise ValueError(f"unexpected argument {arguments[0]!r}; settings are given as --name=value")
        return arguments

    def quiet_main(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.ERROR)  # for the libraries; this project's output is printed
        code = main(arguments)
        sys.stdout.flush()  # raises BrokenPipeError here, where it is handled, rather than at exit
        return code

    flags.FLAGS.register_key_flag_for_module(_module_name(main.__module__), flags.FLAGS["debug"])
    with _plain_errors(), interruptible():
        app.run(quiet_main, flags_parser=parse)


def check_output(flag: str, path: Path) -> None:
    """Raises ``ValueError`` early if ``path`` cannot be written as a file."""
    if path.is_dir():
        raise ValueError(f"--{flag}={path}: is a folder; must be a file")
    if not path.parent.is_dir():
        raise ValueError(f"--{flag}={path}: there is no folder {path.parent}")


class _StepParser(flags.ArgumentParser):
    syntactic_help = "a number, or best"

    def parse(self, argument: str) -> int | Literal["best"]:
        if argument == "best":
            return "best"
        if not argument.isdecimal():
            raise ValueError('must be the step of a checkpoint, such as 500, or "best"')
        return int(argument)

    def flag_type(self) -> str:
        return "step"


def _with_config_paths(argv: list[str]) -> list[str]:
    """The arguments, with the path of this project's config for ``--config=NAME`` or ``--config NAME``."""
    return [
        f"--config={_config_path(argument.partition('=')[2])}"
        if argument.startswith(("--config=", "-config="))
        else _config_path(argument)
        if previous in ("--config", "-config")
        else argument
        for previous, argument in zip(["", *argv], argv, strict=False)
    ]


def _config_path(text: str) -> str:
    """The path of a Python file, and perhaps a word for it, that ml_collections reads.

    A YAML file is the word for what makes a config of it. ``NAME`` or ``NAME:WORD`` becomes the path of this
    project's config NAME, unless there is a file NAME.
    """
    name, colon, word = text.partition(":")
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return f"{_FROM_YAML}:{text}"
    path = _CONFIGS / f"{name}.py"
    return text if Path(name).is_file() or not path.is_file() else f"{path}{colon}{word}"


def _check_config_flags(argv: list[str]) -> None:
    """Raises FileNotFoundError for a missing ``--config`` file, ValueError listing all unknown fields."""
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if match := _CONFIG_FILE.fullmatch(argument):
            path = (following if match["path"] is None else match["path"]).partition(":")[0]
            if not Path(path).is_file():
                files = sorted(_CONFIGS.rglob("*.py"))
                names = [file.relative_to(_CONFIGS).with_suffix("").as_posix() for file in files]
                raise FileNotFoundError(
                    f"--config={path}: there is no such file; this project has {', '.join(names)}"
                )

    fields, sections = flatten(Config()), to_dict(Config())
    problems = []
    for name in (match["name"] for argument in argv if (match := _OVERRIDE.match(argument))):
        if name in sections:
            problems.append(f"config.{name} is not a field; it has {', '.join(sections[name])}")
        elif name not in fields:
            problems.append(f"unknown field config.{name}; {suggest(name)}")
    if problems:
        raise ValueError("\n".join(problems))


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Prints errors that a user can fix without a traceback, and exits with code 1 (130 for Ctrl-C)."""
    try:
        yield
    except BrokenPipeError:
        if "--debug" in sys.argv:
            raise
        # Python would fail again when it flushes stdout at exit, so what is left of the output is discarded:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, FloatingPointError, flags.Error) as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {_message(error)}\n--debug shows the traceback", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = re.sub(r"flag --(\w+)=None: .* other than None\.", r"--\1 is missing; see --help", str(error))
    # ml_collections wraps an error from get_config in a traceback; keep only the error.
    wrapper = (
        r"(?s)Error whilst parsing config file:\n\nTraceback .*\n(ValueError: |TypeError: (?=get_config))"
    )
    text = re.sub(wrapper, "", text).rstrip()
    text = text.replace(f"{_FROM_YAML}:", "")
    return re.sub(r"flag --config=(.+?)(?::inference)?: (?=\1: )", "", text)


def _print_help(module: str, positional: str) -> None:
    print((sys.modules[module].__doc__ or "").strip())
    if positional:
        print(f"\nArguments: {positional}")
    _, _, described = flags.FLAGS.module_help(_module_name(module)).lstrip().partition("\n")
    print(f"\nFlags:\n{described}")


def _module_name(module: str) -> str:
    """What absl calls a module."""
    return sys.argv[0] if module == "__main__" else module
