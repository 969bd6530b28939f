"""Damaged annotations: findings, or one ValueError, and never another exception."""

import copy
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrcnn_jax.data.importers.convert import Options, convert
from mrcnn_jax.data.importers.recognise import what_it_looks_like
from tests.data.importers.examples import DOCUMENTS, TEXTS

WRONG = (
    None, True, 0, -1, 2.5, 1e300, float("nan"), float("inf"), 10**400, "", "a", "../a.png", "/etc/passwd",
    "\0", "\ud800", "a" * 300, [], [1], [[]], [None], {}, {"a": 1}, "1,2",
)  # fmt: skip
WORDS = (
    "",
    "-1",
    "nan",
    "inf",
    "1e999",
    "999",
    "..",
    "../x",
    "\0",
    "<a>",
    "é",
    "[",
    "!!python/name:os",
    "&a",
    "*a",
)
SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(value, path=()):
    """The path of every value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def check(source, **options):
    what_it_looks_like(source)
    try:
        builder = convert(source, Options(**options))
    except ValueError as error:
        assert str(error)
        return
    json.dumps(builder.content(), allow_nan=False)


@pytest.mark.parametrize("kind", DOCUMENTS)
@SETTINGS
@given(data=st.data())
def test_json(tmp_path, save, kind, data):
    name, document, options = DOCUMENTS[kind]
    save("data/a.png")
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(document))))
        wrong = data.draw(st.sampled_from(WRONG))
        if not path:
            document = wrong
            break
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[path[-1]] = copy.deepcopy(wrong)
        else:
            del inner[path[-1]]
    source = tmp_path / "data" / name
    source.write_bytes(json.dumps(document).encode("utf-8", "surrogatepass"))
    check(source, format=kind.partition(" ")[0], **options)


@pytest.mark.parametrize("kind", TEXTS)
@SETTINGS
@given(data=st.data())
def test_text(tmp_path, save, kind, data):
    files, changed, options = TEXTS[kind]
    save("data/images/a.png")
    for name, text in files.items():
        if name == changed:
            words = re.split(r"(\W+)", text)
            for _ in range(data.draw(st.integers(1, 3))):
                words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(WORDS))
            text = "".join(words)
        save(f"data/{name}", text)
    check(tmp_path / "data", format=kind.partition(" ")[0], **options)
