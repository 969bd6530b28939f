"""What is wrong with the files of a data set, found entry by entry and reported all at once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROWS = 50  # of a table on a terminal, unless said otherwise


@dataclass(frozen=True, slots=True)
class Finding:
    """One entry or file that breaks a rule.

    A warning is about what COCO's own files hold, too: it stops nothing.
    """

    file: str  # the annotation file, or that of the image
    image_id: int | None
    annotation_id: int | None  # None: the image as a whole, or an entry without a usable id
    rule: str  # which one it breaks, and the value
    warning: bool = False


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are no warnings."""
    return [finding for finding in findings if not finding.warning]


def raise_errors(name: str, findings: Sequence[Finding], *, remedy: str = "") -> None:
    """Raises one ValueError with the table of the findings, as ``summary`` has it, if any is an error.

    The message begins with ``name``; ``remedy`` tells how to go on without what the findings are about.
    """
    if wrong := errors(findings):
        hint = f"; {remedy}" if remedy else ""
        count = _count(len(wrong), "error")
        raise ValueError(f"{name}: {count} in annotations and images{hint}\n{_cut_table(findings, _ROWS)}")


def summary(findings: Sequence[Finding], *, rows: int = _ROWS) -> str:
    """How much was found, and the table of the first ``rows``.

    Of more findings the whole table is written to a file in ``~/.cache/mrcnn_jax/findings``, which is named.
    """
    wrong = len(errors(findings))
    counts = []
    if wrong:
        counts.append(f"{_count(wrong, 'error')}, left out of the data")
    if others := len(findings) - wrong:
        counts.append(f"{_count(others, 'warning')}, taken as the table says")
    return f"{'; '.join(counts)}\n{_cut_table(findings, rows)}"


def as_table(findings: Sequence[Finding]) -> str:
    """The findings as lines of aligned columns.

    Errors come before warnings, both by file, image and annotation. Characters that would break a line or
    cannot be printed are escaped.
    """
    cells = [("file", "image", "annotation", "rule")]
    for finding in sorted(findings, key=_place):
        rule = f"warning: {finding.rule}" if finding.warning else finding.rule
        image, annotation = _shown(finding.image_id), _shown(finding.annotation_id)
        cells.append((printable(finding.file), image, annotation, printable(rule)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join((file.ljust(widths[0]), image.rjust(widths[1]), annotation.rjust(widths[2]), rule))
        for file, image, annotation, rule in cells
    )


def printable(text: str) -> str:
    """The text in one line that any UTF-8 terminal takes.

    What cannot be printed is escaped, a byte of a file name that is not UTF-8 as ``\\xe9``.
    """
    return "".join(_escape(x) for x in text)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # what Python makes of such a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _cut_table(findings: Sequence[Finding], rows: int) -> str:
    """The table of the first ``rows``, then how many there are more, and the file that has them all."""
    table = as_table(sorted(findings, key=_place)[:rows])
    if len(findings) <= rows:
        return table
    file = _write_table(as_table(findings))
    where = f"; all of them are in {printable(str(file))}" if file else ""
    return f"{table}\n... and {len(findings) - rows} more{where}"


def _write_table(table: str) -> Path | None:
    """The file, named after what it holds; None in a home that cannot be written to."""
    name = hashlib.sha256(table.encode()).hexdigest()[:12]
    path = Path.home() / ".cache" / "mrcnn_jax" / "findings" / f"{name}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{table}\n", encoding="utf-8")
    except OSError:
        return None
    return path


def _place(finding: Finding) -> tuple:
    def key(number: int | None) -> tuple[bool, int]:
        return number is not None, number or 0

    return finding.warning, finding.file, key(finding.image_id), key(finding.annotation_id), finding.rule


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
