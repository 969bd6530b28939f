"""Reads untrusted JSON files, and writes JSON files atomically."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_json(path: Path, *, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """The content of a JSON file; ``object_hook`` replaces each object, innermost first.

    Raises OSError if the file cannot be read, and ValueError, naming it, if it is not valid JSON.
    """
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        del data  # frees memory: the text is a second copy
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, a number with too many digits, nested too deeply
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically: nested dicts with one value per line, anything else on one line.

    Readers see either the old content or the new. Raises ValueError for a non-finite number and TypeError for
    a value that JSON cannot represent; the old file is then kept.
    """
    text = _pretty(content) + "\n"
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a temporary file beside ``path`` that replaces it if the block succeeds."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _pretty(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    lines = (
        f"{indent}  {json.dumps(key, ensure_ascii=False)}: {_pretty(item, indent + '  ')}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
