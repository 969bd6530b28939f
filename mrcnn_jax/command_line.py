"""What the scripts share: the ``--config`` flag, one-line errors, and JAX's set-up for a process of its own.

A script reads:

    _config = command_line.define_config()

    def main(arguments: list[str]) -> None:
        setup_jax()  # of mrcnn_jax.runtime.setup
        ...  # imports that take seconds go here, so that --help and a mistyped flag answer at once

    if __name__ == "__main__":
        command_line.run(main)

Only scripts import this module, and programs that set a process up as they do. Importing the library, or
``mrcnn_jax.load``, changes nothing in a process.
"""

import faulthandler
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from absl import app, flags, logging
from ml_collections import config_flags

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.io import flatten, from_dict, validate
from mrcnn_jax.config.suggestions import suggest

# The flags defined here are the calling script's, for its --help.
flags.disclaim_key_flags()

_DEBUG = flags.DEFINE_bool("debug", False, "show the whole traceback of an error")

_CONFIG_FILE = re.compile(r"--?config(?:=(?P<path>.*))?")
_OVERRIDE = re.compile(r"--?(?:no)?config\.(?P<name>[^=]+)")


def define_config(default: Path | None = None) -> Callable[[], Config]:
    """A function that returns the config of ``--config=FILE``, as changed by ``--config.train.steps=100``.

    ``--config=FILE:WORD`` calls the file's ``get_config("WORD")``.

    To be called at the top of a script; the function it returns, in ``main``. That one raises ValueError if
    the flag is missing and has no ``default``, or the file's ``get_config`` returns no config, or one that
    ``validate`` rejects.
    """
    flag = config_flags.DEFINE_config_file(
        "config",
        None if default is None else str(default),
        "file that defines get_config(); --config.train.steps=100 changes one of its fields",
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
    """A function that returns a config with the ``--config.test.detections=10`` of the command line in it.

    For the scripts that take their config from a saved run. To be called at the top of the script; the
    function it returns, in ``main``. That one raises ValueError if ``validate`` rejects the outcome.
    """
    with _plain_errors():  # of the command line, which is read already here, as there is no file to wait for
        _check_config_flags(sys.argv)
        flag = config_flags.DEFINE_config_dataclass(
            "config", Config(), "--config.test.detections=10 changes a field of the saved config"
        )
    flags.FLAGS[flag.name].default_as_str = None  # all fields of a config, in a help of a few lines

    def override(config: Config) -> Config:
        values = to_dict(config)
        for name, value in config_flags.get_override_values(flags.FLAGS["config"]).items():
            section, field = name.split(".")
            values[section][field] = value
        changed = from_dict(values)
        validate(changed)
        return changed

    return override


def define_hosts(*, stops_when_asked: bool) -> Callable[[], AbstractContextManager[None]]:
    """A function that makes this process one of a run's, as ``hosts.join`` does, by the flags defined here.

    To be called at the top of a script; the function it returns, in ``main``, for the block in which JAX is
    used: ``with hosts(): ...``. Where there are other processes, an error in it ends this one at once, as
    JAX would otherwise wait at the exit for the others, and they for this one.
    """
    coordinator = flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, of a run by several processes that JAX cannot find out"
    )
    num_processes = flags.DEFINE_integer("num_processes", None, "how many they are", lower_bound=1)
    process_id = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)

    @contextmanager
    def joined() -> Iterator[None]:
        from mrcnn_jax.distributed import hosts

        hosts.join(
            coordinator.value, num_processes.value, process_id.value, stops_when_asked=stops_when_asked
        )
        if hosts.alone():
            yield
            return
        faulthandler.disable()  # JAX says why it aborts a process; where that was in Python says nothing
        try:
            with _plain_errors(), hosts.noticing_the_dead():
                yield
        except BaseException as error:
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)

    return joined


def define_step() -> flags.FlagHolder[int | Literal["best"] | None]:
    """The flag; its value is as ``mrcnn_jax.load`` takes it. To be called at the top of a script."""
    return flags.DEFINE(
        _StepParser(),
        "step",
        None,
        'checkpoint to use: its step, or "best" for the best of those evaluated in training; the newest if '
        "not given",
    )


def run(main: Callable[[list[str]], int | None], *, positional: str = "") -> None:
    """Exits with what ``main`` returns, once it has been called with the command line's positional arguments.

    ``positional`` says what these are, for the help; without it there must be none. A ValueError, OSError
    or FloatingPointError (a loss that is not finite) becomes a message on stderr, ``error: ...``, and a line
    that names ``--debug``, which shows the traceback instead; the exit code is 1. Ctrl-C exits with 130.
    """
    # Before TensorFlow and XLA are loaded: what their C++ logs, short of errors, is nothing to act on.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-help", "-h"} & set(argv):
            _print_help(positional)
            sys.exit(0)
        _check_config_flags(argv)
        arguments = flags.FLAGS(argv)[1:]
        if arguments and not positional:
            raise ValueError(f"unexpected argument {arguments[0]!r}; settings are given as --name=value")
        return arguments

    def quiet_main(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.ERROR)  # of the libraries: our own lines are printed
        return main(arguments)

    flags.declare_key_flag("debug")
    with _plain_errors():
        app.run(quiet_main, flags_parser=parse)


def check_output(flag: str, path: Path) -> None:
    """Raises ``ValueError`` for what would otherwise fail only once there is something to write."""
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


def _check_config_flags(argv: list[str]) -> None:
    """Raises FileNotFoundError for the file of ``--config``, ValueError with all overrides of no field."""
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if match := _CONFIG_FILE.fullmatch(argument):
            path = (following if match["path"] is None else match["path"]).partition(":")[0]
            if not Path(path).is_file():
                raise FileNotFoundError(f"--config={path}: there is no such file")

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
    """Errors that tell a user what to change, as a message without a traceback."""
    try:
        yield
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
    # What get_config says of its word; ml_collections puts the traceback around it.
    around = (
        r"(?s)Error whilst parsing config file:\n\nTraceback .*\n(ValueError: |TypeError: (?=get_config))"
    )
    return re.sub(around, "", text).rstrip()


def _print_help(positional: str) -> None:
    script = sys.modules["__main__"]
    print((script.__doc__ or "").strip())
    if positional:
        print(f"\nArguments: {positional}")
    print(f"\nFlags:{flags.FLAGS.main_module_help()}")
