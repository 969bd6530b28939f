import json
from pathlib import Path

import pytest

from mrcnn_jax.tool_formats import results_file
from mrcnn_jax.tool_formats.results_file import ResultsFile


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "detections.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def entry(image_id: int, category_id: int = 1, **fields: object) -> dict:
    return {"image_id": image_id, "category_id": category_id, **fields}


def test_entries_by_image_in_file_order(tmp_path):
    entries = [entry(7, score=0.5), entry(3), entry(7, 2, category="café"), entry(-1), entry(3, 2)]
    file = ResultsFile(write(tmp_path, entries))
    assert file.image_ids == [7, 3, -1]
    assert file.categories == {1: None, 2: "café"}
    path = tmp_path / "detections.json"
    assert list(file.entries(7)) == [(f"{path}: [0]", entries[0]), (f"{path}: [2]", entries[2])]
    assert [found for _, found in file.entries(3)] == [entries[1], entries[4]]
    assert list(file.entries(99)) == []


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_any_layout_and_any_chunk(tmp_path, monkeypatch, chunk, options):
    monkeypatch.setattr(results_file, "_CHUNK", chunk)
    entries = [entry(i % 3, file_name='ü{"]\\', category="日本", nested=[{"a": [i]}]) for i in range(9)]
    data = b"\xef\xbb\xbf" * (chunk > 2) + json.dumps(entries, **options).encode() + b"\n"
    file = ResultsFile(write(tmp_path, data))
    assert [found for _, found in file.entries(2)] == entries[2::3]
    assert file.categories == {1: "日本"}


def test_no_entries(tmp_path):
    file = ResultsFile(write(tmp_path, []))
    assert (file.image_ids, file.categories) == ([], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a COCO results list; the file is empty"),
        (b'{"images": []}', "must be a COCO results list; it holds an object, like a COCO dataset"),
        (b"7", "must be a COCO results list; it holds none"),
        (b"[", "not valid JSON at byte 1: Expecting value"),
        (b"[7]", "the entry at byte 1 must be an object, got 7"),
        (b'[{"image_id": 1, "category_id": 1} {}]', "not valid JSON at byte 35: a comma or ] is missing"),
        (b'[{"image_id": 1, "category_id": 1}] 5', "not valid JSON: the list ends before byte 36"),
        (b'[{"image_id": 1, "category_id": 1', "not valid JSON at byte 33: "),
        (b'[{"image_id": 1, "category_id": 1}, {"image_id" 2}]', "not valid JSON at byte 48: Expecting ':'"),
        (b'[{"image_id": 1, "category_id": 1, "category": "\xff"}]', "not valid JSON: 'utf-8' codec"),
        (b"[" + b'{"a":' * 100_000, "not valid JSON: nested too deeply"),
        ([{}], r"\[0\]: image_id must be an integer, got None"),
        ([entry(1), {"image_id": 2, "category_id": "x"}], r"\[1\]: category_id must be an integer, got 'x'"),
        ([entry(1, category=["x"])], r"\[0\]: category must be a string"),
        (
            [entry(1, category="cat"), entry(1, category="dog")],
            r"\[1\]: category_id 1 is called 'dog' here, 'cat' before",
        ),
    ],
)
def test_malformed_files_are_named(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        ResultsFile(path)


def test_a_large_entry_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "_CHUNK", 16)
    monkeypatch.setattr(results_file, "_LARGEST_ENTRY", 256)
    with pytest.raises(ValueError, match="the entry at byte 1 has more than 64 MiB"):
        ResultsFile(write(tmp_path, b'[{"a": "' + b"x" * 10_000 + b'"}]'))
