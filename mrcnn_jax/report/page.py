"""Builds HTML whose text is always escaped, and pages that can load nothing from elsewhere."""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrcnn_jax.data.findings import printable

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
# Control characters, halves of emoji and bytes of file names, and marks that would reverse what follows.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VOID = ("img", "meta", "br", "input")


class Html(str):
    """Text that is HTML already: every other ``str`` is escaped by ``element``."""

    __slots__ = ()


Child = str | Iterable["Child"]


def element(name: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element of HTML or SVG, such as ``element("td", "a < b", class_="number")``.

    Children are ``Html``, or text, which is escaped, or iterables of these. Of an attribute's name a trailing
    underscore is dropped and others become hyphens; one that is None is left out.
    """
    written = [name]
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            written.append(f'{_attribute(key)}="{_escape(text)}"')
    start = f"<{' '.join(written)}>"
    return Html(start if name in _VOID else f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """The children one after the other, escaped unless they are ``Html``."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(_escape(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading, which the contents link to."""

    title: str
    content: Html


def section(title: str, *children: Child) -> Section:
    """A section of the page with its heading."""
    return Section(title, element("section", element("h2", title), *children, id=title.lower()))


def page(title: str, lead: Child, sections: Sequence[Section]) -> str:
    """A whole document with links to its sections, whose titles are single words.

    By its content security policy a browser loads nothing, and runs and applies only the page's own script
    and style, so that text that got around the escaping could do no harm.
    """
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(_STYLE)}'",
            f"script-src '{_hash(_SCRIPT)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    links = (element("a", item.title, href=f"#{item.title.lower()}") for item in sections)
    body = element(
        "body",
        element("header", element("h1", title), lead),
        element("nav", links, aria_label="Contents"),
        element("main", (item.content for item in sections)),
        element("script", Html(_SCRIPT)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _escape(text: str) -> str:
    return html.escape(_UNPRINTABLE.sub(lambda match: printable(match[0]), text))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
