"""The notebooks run, and what they print is what is stored in them."""

import json
import os
from pathlib import Path

import pytest

from scripts.run_notebooks import run_notebook

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def printed(notebook):
    """The text of every code cell's output; pictures by their type."""
    return [
        ["".join(output.get("text", "")) or sorted(output["data"]) for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_roi_align_prints_what_is_stored():
    path = NOTEBOOKS / "roi_align.ipynb"
    assert printed(run_notebook(path)) == printed(json.loads(path.read_text("utf-8")))


@pytest.mark.slow
def test_train_on_shapes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = run_notebook(NOTEBOOKS / "train_on_shapes.ipynb", {"steps": 2, "images": 16})
    assert [len(outputs) > 0 for outputs in printed(notebook)].count(True) >= 7
    assert os.path.exists("runs/shapes/checkpoints/2")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_are_stored_and_small(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert any("image/png" in kinds for outputs in printed(notebook) for kinds in outputs)
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("source", [[], ["# to be written"]])
def test_a_cell_without_code_has_no_output(tmp_path, source):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": source}]}))
    assert run_notebook(path)["cells"][0]["outputs"] == []


def test_a_cell_is_printed_and_its_last_expression_shown(tmp_path):
    path = tmp_path / "a.ipynb"
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["x = 1\n"]},
        {"cell_type": "markdown", "metadata": {}, "source": ["# title"]},
        {"cell_type": "code", "metadata": {}, "source": ["print(x)\n", "x + 1"]},
        {"cell_type": "code", "metadata": {}, "source": ["1 / (x - 5)"]},
    ]
    path.write_text(json.dumps({"cells": cells}))
    first, _, second, _ = run_notebook(path)["cells"]
    assert first["outputs"] == []
    assert second["outputs"][0]["text"] == ["1\n"]
    assert second["outputs"][1]["data"] == {"text/plain": ["2"]}
    with pytest.raises(ZeroDivisionError) as caught:
        run_notebook(path, {"x": 5})
    assert caught.value.__notes__ == [f"in code cell 3 of {path}"]
