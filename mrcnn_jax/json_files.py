"""JSON files, read without trust and replaced as a whole."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: Path, *, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """What the file holds. Raises OSError if it cannot be read, ValueError, naming it, if it is not JSON.

    Each object, the inner ones first, is replaced by what ``object_hook`` returns for it.
    """
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        del data  # not to be there twice while it is read
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of too many digits, too deep
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes nested dicts with a line for each value, and anything else in one line.

    Whoever reads the file finds the old content or the new, whole. Raises ValueError for a number that is not
    finite and TypeError for what JSON has no form for; the old file then stays.
    """
    text = _pretty(content) + "\n"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
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
