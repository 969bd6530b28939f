"""What ``--config=FILE.yaml`` and ``--config=FILE.yaml:inference`` call, in the place of a Python file."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.config.detectron2 import read_config


def get_config(text: str) -> Config:
    """The config of ``FILE.yaml`` or ``FILE.yaml:inference``. Raises the errors of ``read_config``."""
    file, colon, word = text.rpartition(":")
    if not colon or Path(text).is_file():
        file, word = text, ""
    if word not in ("", "inference"):
        raise ValueError(f"--config={text}: what follows the colon must be 'inference', or nothing")
    try:
        return read_config(Path(file), for_inference=word == "inference")
    except OSError as error:  # of a file that this one is based on
        raise ValueError(f"{error.filename}: {error.strerror}") from error
