"""The page of a data set, made by hand: ``hand_made`` has three images with four objects."""

import html
import re

import numpy as np
import pytest

from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.data.summary import summarise
from mrcnn_jax.report.data_report import write_data_report
from tests.report.hand_made import BALL, FIGURE, NEVER, make_run
from tests.report.test_page import check_document
from tests.report.test_run_report import rows_of

PICTURE = np.full((64, 64, 3), 120, np.uint8)


def page(folder, *, findings=(), sections=None, **data):
    config = make_run(folder, sections=sections)
    for name, value in data.items():
        setattr(config.data, name, value)
    summary = summarise(open_validation_source(config), config.data, keypoints=False)
    selection = ["a line & another"]
    write_data_report(
        folder / "data.html",
        summary,
        findings=findings,
        selection=selection,
        pictures=[(PICTURE, "step 0   image <1>")],
    )
    text = (folder / "data.html").read_text(encoding="utf-8")
    check_document(text)
    return text


def words_of(text):
    return [html.unescape(words) for words in re.findall('aria-label="(.*?)"', text)]


def test_by_hand(tmp_path):
    text = page(tmp_path)
    for name, value, note in (
        ("images", "3", "2 trained on"),
        ("objects", "3", "and 1 crowd"),
        ("categories", "3", "1 without objects"),
        ("objects per image", "1.5", "of images with objects"),
    ):
        assert f"<span>{name}</span><b>{value}</b><span>{note}</span>" in text
    assert rows_of(text, "categories") == [
        ["category", "objects", "", "images", "small", "medium", "large", "crowds"],
        [BALL, "2", "", "2", "1", "0", "0", "1"],
        [FIGURE, "2", "", "2", "2", "0", "0", "0"],
        [NEVER, "0", "", "0", "0", "0", "0", "0"],
    ]
    assert rows_of(text, "shapes")[1] == ["60 x 40", "3", "100.0"]
    # Boxes of 12 x 12, 20 x 30 and 20 x 24: sides of 12, 24.5 and 21.9 pixels.
    assert [words for words in words_of(text) if " in all" in words] == [
        "objects by pixels of the image as it is: 3 in all, most (1) at 11.3 to 16",
        "objects by width : height: 3 in all, most (2) at 1:1",
        "images by objects: 3 in all, most (2) at 2",
    ]
    assert "<li>a line &amp; another</li>" in text and "<li>padding: " in text
    assert 'id="findings"' not in text
    assert text.count("data:image/webp") == 1 and "step 0   image &lt;1&gt;" in text


def test_findings(tmp_path):
    findings = [Finding("a.json", 3, None, "a warning", True), Finding("a.json", 3, 4, "<bbox> is empty")]
    text = page(tmp_path, findings=findings)
    assert "1 error, left out, and 1 warning." in text
    assert rows_of(text, "findings")[1:] == [
        ["left out", "a.json", "3", "4", "<bbox> is empty"],
        ["warning", "a.json", "3", "", "a warning"],
    ]
    many = page(tmp_path / "many", findings=findings * 200)
    assert "200 errors, left out, and 200 warnings. The first 200 are listed." in many
    assert len(rows_of(many, "findings")) == 201


def test_repeated_images(tmp_path):
    row = rows_of(page(tmp_path, repeat_threshold=0.9), "categories")
    assert row[0][-2:] == ["share, %", "seen, %"] and row[1][-2:] == [
        "50.00",
        "57.29",
    ]  # of factors sqrt(0.9 / 0.5) and 1


@pytest.mark.filterwarnings("error")
def test_no_objects(tmp_path):
    text = page(tmp_path, sections={"annotations": []})
    assert "<b>0.0</b>" in text and "objects by width : height: 0 in all" in words_of(text)
