import os
import re

import pytest

from mrcnn_jax.data.findings import Finding, as_table, printable, raise_errors, summary


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("żółw 猫.png", "żółw 猫.png"),
        (os.fsdecode(b"caf\xe9\xff.png"), r"caf\xe9\xff.png"),
        ("a\tb\x9b\ud800", r"a\tb\x9b\ud800"),
    ],
)
def test_unprintable_characters_are_escaped(text, printed):
    assert printable(text) == printed


def test_table():
    findings = [
        Finding("b.json", 7, 12, "iscrowd must be 0 or 1, got 2"),
        Finding("b.json", 7, None, "odd", warning=True),
        Finding("images/a\nb\ud800.png", 12345, None, "there is no such file"),
        Finding("b.json", None, None, "images[0] must be an object, got 3"),
    ]
    assert as_table(findings) == (
        "file                   image  annotation  rule\n"
        "b.json                     -           -  images[0] must be an object, got 3\n"
        "b.json                     7          12  iscrowd must be 0 or 1, got 2\n"
        "images/a\\nb\\ud800.png  12345           -  there is no such file\n"
        "b.json                     7           -  warning: odd"
    )
    assert summary(findings).splitlines() == [
        "3 errors, left out of the data; 1 warning, handled as the table says",
        *as_table(findings).splitlines(),
    ]
    assert summary(findings[1:2]).startswith("1 warning, handled as the table says\n")
    assert summary(findings[:1]).startswith("1 error, left out of the data\n")
    raise_errors("b.json", findings[1:2])
    with pytest.raises(ValueError, match=re.escape("b.json: 1 error in annotations and images; skip it\n")):
        raise_errors("b.json", findings[:2], remedy="skip it")


def many(count):
    return [Finding("b.json", image, None, "there is no such file") for image in range(count)]


def test_a_truncated_table_names_the_file_with_the_full_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = summary(many(4), rows=2).splitlines()
    (file,) = (tmp_path / ".cache" / "mrcnn_jax" / "findings").iterdir()
    assert lines[1:3] == as_table(many(2)).splitlines()[:2] and len(lines) == 5
    assert lines[-1] == f"... and 2 more; all are listed in {file}"
    assert file.read_text() == as_table(many(4)) + "\n"
    with pytest.raises(ValueError, match=r"\.\.\. and 10 more; all are listed in .*/findings/\w+\.txt$"):
        raise_errors("b.json", many(60))

    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert summary(many(4), rows=2).endswith("\n... and 2 more")
