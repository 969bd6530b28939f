"""What is wrong with the files of a data set, found entry by entry and reported all at once."""

from collections.abc import Sequence
from dataclasses import dataclass


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
    """Raises one ValueError with the table of all findings if any is an error.

    The message begins with ``name``; ``remedy`` tells how to go on without what the findings are about.
    """
    if wrong := errors(findings):
        hint = f"; {remedy}" if remedy else ""
        raise ValueError(
            f"{name}: {_count(len(wrong), 'error')} in annotations and images{hint}\n{as_table(findings)}"
        )


def summary(findings: Sequence[Finding], *, rows: int = 50) -> str:
    """How much was left out for these findings, and the table of the first ``rows``."""
    wrong = len(errors(findings))
    counts = f"{_count(wrong, 'error')}, {_count(len(findings) - wrong, 'warning')}"
    return f"left out of the data: {counts}\n{as_table(findings, rows=rows)}"


def as_table(findings: Sequence[Finding], *, rows: int = 50) -> str:
    """The first ``rows`` findings as lines of aligned columns, and the number of the others.

    Errors come before warnings, both by file, image and annotation. Characters that would break a line or
    cannot be printed are escaped.
    """
    ordered = sorted(findings, key=_place)
    cells = [("file", "image", "annotation", "rule")]
    for finding in ordered[:rows]:
        rule = f"warning: {finding.rule}" if finding.warning else finding.rule
        image, annotation = _shown(finding.image_id), _shown(finding.annotation_id)
        cells.append((printable(finding.file), image, annotation, printable(rule)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join((file.ljust(widths[0]), image.rjust(widths[1]), annotation.rjust(widths[2]), rule))
        for file, image, annotation, rule in cells
    ]
    if len(ordered) > rows:
        lines.append(f"... and {len(ordered) - rows} more")
    return "\n".join(lines)


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


def _place(finding: Finding) -> tuple:
    def key(number: int | None) -> tuple[bool, int]:
        return number is not None, number or 0

    return finding.warning, finding.file, key(finding.image_id), key(finding.annotation_id), finding.rule


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
