"""Reads the CSV files that VIA (versions 1 and 2) exports: one line for each region.

Format: ``pack_via_metadata`` and ``parse_csv_header_line`` in ``via.js``.
"""

import csv
import json
from pathlib import Path
from typing import Any

from mrcnn_jax.data.importers.files import read_lines

_COLUMNS = (
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
    "region_attributes",
)  # fmt: skip


def is_via_csv(text: str) -> bool:
    """Whether a file that begins with ``text`` is VIA's. Version 1.0 writes "#" before the first column."""
    return _delimiter(text) is not None


def read_via_csv(path: Path) -> dict[str, Any]:
    """The content of a CSV file in the form of VIA's JSON export: an entry for each image.

    Raises ValueError, naming the file and the line, if it is not such a file.
    """
    lines = read_lines(path)
    delimiter = _delimiter(lines[0] if lines else "")
    if delimiter is None:
        raise ValueError(f"{path}: the first line must be VIA's: {','.join(_COLUMNS)}")
    images: dict[str, Any] = {}
    reader = csv.reader(lines[1:], delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(row):
                _add_row(images, row, delimiter)
    except (csv.Error, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: line {reader.line_num + 1}: {error}") from error
    return images


def _add_row(images: dict[str, Any], row: list[str], delimiter: str) -> None:
    if len(row) < len(_COLUMNS):
        raise ValueError(f"must have {len(_COLUMNS)} columns, got {len(row)}")
    # VIA does not quote file names, which may have commas.
    *names, size, _, count, _, shape, attributes = row
    name = delimiter.join(names)
    image = images.setdefault(name + size, {"filename": name, "size": size, "regions": []})
    if count.strip() != "0":  # an image without regions has one line, too
        image["regions"].append(
            {"shape_attributes": json.loads(shape), "region_attributes": json.loads(attributes)}
        )


def _delimiter(text: str) -> str | None:
    """The character between the columns; spreadsheet programs save with others than VIA's comma."""
    header = text.lstrip("#").partition("\n")[0].replace('"', "").strip()
    return next((mark for mark in ",;\t" if header == mark.join(_COLUMNS)), None)
