"""Reads a field's comments as its docstring, and shapes and Sphinx's roles as text: an extension of griffe.

Our dataclasses describe a field beside it (``boxes: Array  # [B P 4] float32``) or in the lines above it.
"""

import dataclasses
import io
import re
import tokenize
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|mod|data|meth):`~?([\w.]+)`")


class Comments(griffe.Extension):
    """Adds the docstrings of fields, replaces roles in all others, and keeps shapes as they are written."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        for annotation in (func.returns, *(parameter.annotation for parameter in func.parameters)):
            _quote_shapes(annotation)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        _quote_shapes(attr.annotation)
        if attr.docstring is None and attr.lineno and attr.endlineno:
            lines = attr.lines_collection[attr.filepath]
            if text := _comments(lines, attr.lineno, attr.endlineno):
                attr.docstring = griffe.Docstring(text, parent=attr)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)


def _quote_shapes(annotation: Any) -> None:
    """Makes every shape in ``Float[Array, "2"]`` a string again: griffe reads "2" as a number."""
    if isinstance(annotation, list):
        for part in annotation:
            _quote_shapes(part)
    elif isinstance(annotation, griffe.Expr):
        if (
            isinstance(annotation, griffe.ExprSubscript)
            and isinstance(annotation.slice, griffe.ExprTuple)
            and annotation.canonical_path.startswith("jaxtyping.")
        ):
            array, *shape = annotation.slice.elements
            annotation.slice.elements = [array, *(repr(str(item).strip("'\" ")) for item in shape)]
        for field in dataclasses.fields(annotation):
            if field.name != "parent":
                _quote_shapes(getattr(annotation, field.name))


def _comments(lines: list[str], first: int, last: int) -> str:
    """The comments above the lines ``first`` to ``last`` (from 1), and those in them."""
    above: list[str] = []
    for line in reversed(lines[: first - 1]):
        if not line.lstrip().startswith("#"):
            break
        above.insert(0, line.strip().lstrip("# "))
    source = "\n".join(line.strip() for line in lines[first - 1 : last])
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return " ".join([*above, *(t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT)])
