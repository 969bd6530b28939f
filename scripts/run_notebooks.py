#!/usr/bin/env python3
"""Runs notebooks of docs/notebooks and stores their outputs in them: text, and pictures as PNG.

    scripts/run_notebooks.py docs/notebooks/roi_align.ipynb

The cells run in this process and in the current folder. What a cell's last expression gives is its output, as
in Jupyter, if it is not None; what it prints comes before.
"""

import ast
import base64
import io
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from absl import app

Cell = dict[str, Any]


def run_notebook(path: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The notebook with the outputs of a fresh run.

    ``parameters`` replace what the cell with the tag "parameters" assigns. Raises what a cell raises, with
    the notebook and the number of the cell, from 1, as a note.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        try:
            cell["outputs"] = _run_cell("".join(cell["source"]), names, number)
        except Exception as error:
            error.add_note(f"in code cell {number} of {path}")
            raise
        cell["execution_count"] = number
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(parameters or {})
    return notebook


def _run_cell(source: str, names: dict[str, Any], number: int) -> list[Cell]:
    tree, value = ast.parse(source), None
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        value = ast.Expression(last.value)
        tree.body.pop()
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"<cell {number}>", "exec"), names)
        shown = None if value is None else eval(compile(value, f"<cell {number}>", "eval"), names)
    outputs: list[Cell] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if shown is not None:
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        outputs.append(result | {"data": _formats(shown)})
    return outputs


def _formats(value: Any) -> dict[str, Any]:
    """A value by media type: a Pillow image as PNG, anything else as its repr."""
    if hasattr(value, "_repr_png_"):
        file = io.BytesIO()
        value.save(file, "PNG", optimize=True)
        return {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<a picture>"]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        sys.exit("error: no notebook was given")
    for path in map(Path, arguments[1:]):
        text = json.dumps(run_notebook(path), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    app.run(main)
