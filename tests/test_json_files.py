import json
import os
from pathlib import Path
from typing import Any

import pytest

from mrcnn_jax.json_files import read_json, write_json


def test_one_value_per_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"sizes": [[1, 2], [3]], "ä": {"on": True, "empty": {}, "list": []}})
    assert (tmp_path / "a.json").read_text(encoding="utf-8").splitlines() == [
        "{",
        '  "sizes": [[1, 2], [3]],',
        '  "ä": {',
        '    "on": true,',
        '    "empty": {},',
        '    "list": []',
        "  }",
        "}",
    ]


@pytest.mark.parametrize(
    "content", [{}, [], [{"a": [1.5, None]}] * 2, {"a": {"b": {"c": 'quote " and\nline'}}}, "Grün", 3]
)
def test_read_returns_what_was_written(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content


def test_surrogates_become_text_that_every_parser_reads(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    name = os.fsdecode(b"caf\xe9 \\xe9 \n.jpg")
    write_json(file, {name: [name, "half \ud83d", "whole 😀"]})
    shown = "caf\\xe9 \\xe9 \n.jpg"
    assert read_json(file) == {shown: [shown, "half \\ud83d", "whole 😀"]}
    file.read_text(encoding="utf-8")


def test_surrogates_are_kept_exactly_where_they_must_be_read_back(tmp_path: Path) -> None:
    content = {os.fsdecode(b"caf\xe9"): ["half \ud83d", "\\udce9", "whole 😀"]}
    write_json(tmp_path / "a.json", content, exact=True)
    assert read_json(tmp_path / "a.json") == content
    (tmp_path / "a.json").read_text(encoding="utf-8")


def test_object_hook_replaces_inner_objects_first(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"first": {"a": 1}, "list": [{"b": 2}, 3]})
    seen: list[dict] = []

    def hook(entry: dict) -> Any:
        seen.append(entry)
        return sorted(entry)

    assert read_json(tmp_path / "a.json", object_hook=hook) == ["first", "list"]
    assert seen == [{"a": 1}, {"b": 2}, {"first": ["a"], "list": [["b"], 3]}]


@pytest.mark.parametrize("content", [{"name": object()}, [float("nan")], {"a": {"b": float("inf")}}])
def test_values_that_json_cannot_represent_leave_the_old_file(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"name": "Grün"})
    with pytest.raises((TypeError, ValueError), match=r"not JSON (serializable|compliant)"):
        write_json(file, content)
    assert read_json(file) == {"name": "Grün"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_json(file, [1])

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(Path, "replace", fail)
        write_json(file, [2])
    assert read_json(file) == [1]
    assert list(tmp_path.iterdir()) == [file]


def test_a_name_as_long_as_file_systems_take(tmp_path: Path) -> None:
    file = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    write_json(file, [1])
    assert read_json(file) == [1] and list(tmp_path.iterdir()) == [file]


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"a\.json: not a regular file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"a":\n  oops}', "not valid JSON at line 2, column 3: Expecting value"),
        (b'{"train": {"steps": 1', "not valid JSON at line 1, column 22"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a": "\xff"}', "not valid JSON: .*utf-8"),
        (b"[" + b"1" * 5000 + b"]", "not valid JSON: .*digits"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"{tmp_path}/a\.json: {message}"):
        read_json(tmp_path / "a.json")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
