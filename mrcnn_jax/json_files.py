"""Reads untrusted JSON files, and writes JSON files atomically."""

import json
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(path: Path | zipfile.Path, *, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """The content of a JSON file; ``object_hook`` replaces each object, innermost first.

    Raises OSError if the file cannot be read, and ValueError, naming it, if it is not valid JSON, or if it is
    a device or a pipe, which would never end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: not a regular file")
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
    except ValueError as error:  # not UTF-8, or a number with too many digits
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not valid JSON: nested too deeply") from error


def write_json(path: Path, content: Any, *, exact: bool = False) -> None:
    """Writes JSON atomically: nested dicts with one value per line, anything else on one line.

    Surrogates in text become what ``dumps`` makes of them. Readers see either the old content or the new.
    Raises ValueError for a non-finite number and TypeError for a value that JSON cannot represent; the old
    file is then kept.
    """
    text = _without_surrogates(_pretty(content), exact=exact)
    with replacing(path) as unfinished:
        unfinished.write_text(f"{text}\n", encoding="utf-8")


def dumps(value: Any, *, exact: bool = False) -> str:
    """``value`` as JSON on one line, in characters that UTF-8 can hold.

    Text may have surrogates, which UTF-8 cannot: Python has them for the bytes of a file name that is not
    UTF-8, and JSON for half an emoji. They are written as they are printed, as text: ``caf\\xe9.jpg`` for the
    byte 0xE9, ``\\ud83d`` for others. With ``exact`` they become escapes of JSON itself, from which Python
    restores them, but which many other parsers reject. Raises ValueError for a non-finite number and
    TypeError for a value that JSON cannot represent.
    """
    return _without_surrogates(json.dumps(value, ensure_ascii=False, allow_nan=False), exact=exact)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a temporary file beside ``path`` that replaces it if the block succeeds."""
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")  # a name that may be long cannot be added to
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _without_surrogates(text: str, *, exact: bool) -> str:
    escape = _surrogate_escape if exact else _surrogate_text
    return _SURROGATE.sub(lambda match: escape(ord(match[0])), text)


def _surrogate_escape(code: int) -> str:
    return f"\\u{code:04x}"


def _surrogate_text(code: int) -> str:
    r"""``\xe9`` or ``\ud83d`` as text in JSON, where a backslash is doubled."""
    return f"\\\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\\\u{code:04x}"


def _pretty(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    lines = (
        f"{indent}  {json.dumps(key, ensure_ascii=False)}: {_pretty(item, indent + '  ')}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
