"""Problems in the files of a dataset, collected entry by entry and reported together."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROWS = 50  # default length of a printed table


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem with an entry or a file.

    A warning is for what official COCO files contain, too, and never stops anything.
    """

    file: str  # the annotation file or the image file
    image_id: int | None
    annotation_id: int | None  # None: about the whole image, or an entry without a usable id
    rule: str  # the violated rule and the value
    warning: bool = False


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that are not warnings."""
    return [finding for finding in findings if not finding.warning]


def raise_errors(name: str, findings: Sequence[Finding], *, remedy: str = "") -> None:
    """Raises ValueError with the table of ``summary`` if any finding is an error.

    The message begins with ``name``; ``remedy`` says how to continue without the listed entries.
    """
    if wrong := errors(findings):
        hint = f"; {remedy}" if remedy else ""
        count = _count(len(wrong), "error")
        raise ValueError(
            f"{name}: {count} in annotations and images{hint}\n{_truncated_table(findings, _ROWS)}"
        )


def summary(findings: Sequence[Finding], *, rows: int = _ROWS) -> str:
    """The number of errors and warnings, and a table of the first ``rows`` findings.

    If there are more, the full table is written to a file in ``~/.cache/mrcnn_jax/findings``, and the text
    names that file.
    """
    wrong = len(errors(findings))
    counts = []
    if wrong:
        counts.append(f"{_count(wrong, 'error')}, left out of the data")
    if others := len(findings) - wrong:
        counts.append(f"{_count(others, 'warning')}, handled as the table says")
    return f"{'; '.join(counts)}\n{_truncated_table(findings, rows)}"


def as_table(findings: Sequence[Finding]) -> str:
    """The findings as a text table with aligned columns.

    Errors come before warnings; both are sorted by file, image and annotation. Line breaks and unprintable
    characters are escaped.
    """
    cells = [("file", "image", "annotation", "rule")]
    for finding in sorted(findings, key=_sort_key):
        rule = f"warning: {finding.rule}" if finding.warning else finding.rule
        image, annotation = _shown(finding.image_id), _shown(finding.annotation_id)
        cells.append((printable(finding.file), image, annotation, printable(rule)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join((file.ljust(widths[0]), image.rjust(widths[1]), annotation.rjust(widths[2]), rule))
        for file, image, annotation, rule in cells
    )


def printable(text: str) -> str:
    """The text as one line that any UTF-8 terminal can display.

    Unprintable characters are escaped; so are non-UTF-8 bytes of a file name, as ``\\xe9``.
    """
    return "".join(_escape(x) for x in text)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a surrogate, Python's stand-in for such a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _truncated_table(findings: Sequence[Finding], rows: int) -> str:
    """The table of the first ``rows``, then the number of further findings and the file with all of them."""
    table = as_table(sorted(findings, key=_sort_key)[:rows])
    if len(findings) <= rows:
        return table
    file = _write_table(as_table(findings))
    where = f"; all are listed in {printable(str(file))}" if file else ""
    return f"{table}\n... and {len(findings) - rows} more{where}"


def _write_table(table: str) -> Path | None:
    """The file written, named by a hash of the table; None if the home directory is not writable."""
    name = hashlib.sha256(table.encode()).hexdigest()[:12]
    path = Path.home() / ".cache" / "mrcnn_jax" / "findings" / f"{name}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{table}\n", encoding="utf-8")
    except OSError:
        return None
    return path


def _sort_key(finding: Finding) -> tuple:
    def key(number: int | None) -> tuple[bool, int]:
        return number is not None, number or 0

    return finding.warning, finding.file, key(finding.image_id), key(finding.annotation_id), finding.rule


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
