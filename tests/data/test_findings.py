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
def test_what_cannot_be_printed_is_escaped(text, printed):
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
    assert summary(findings, rows=1).splitlines() == [
        "left out of the data: 3 errors, 1 warning",
        "file    image  annotation  rule",
        "b.json      -           -  images[0] must be an object, got 3",
        "... and 3 more",
    ]
    raise_errors("b.json", findings[1:2])
    with pytest.raises(ValueError, match=re.escape("b.json: 1 error in annotations and images; skip it\n")):
        raise_errors("b.json", findings[:2], remedy="skip it")
