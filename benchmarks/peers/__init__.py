"""Reference implementations, which run in a separate interpreter."""

import shutil


def check_interpreter(python: str) -> None:
    """Raises ValueError if ``python``, the value of ``--peer``, is not a program."""
    if shutil.which(python) is None:
        raise ValueError(f"--peer={python}: there is no such program")
