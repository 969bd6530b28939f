import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from mrcnn_jax.report.page import Html, element, join, page, section


def test_elements():
    assert element("td", "a < b", class_="n") == '<td class="n">a &lt; b</td>'
    assert element("p", ["one & ", element("b", "two")]) == "<p>one &amp; <b>two</b></p>"
    assert element("img", src="x", alt='"', data_value=0.25) == '<img src="x" alt="&quot;" data-value="0.25">'
    assert element("p", title=None) == "<p></p>"
    assert join("a", Html("<br>"), (child for child in ("<", ">"))) == "a<br>&lt;&gt;"
    assert isinstance(join("a"), Html)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("caf\udce9.jpg", "caf\\xe9.jpg"),  # a byte of a file name that is no UTF-8
        ("half \ud83d", "half \\ud83d"),
        ("two\nlines\x00", "two\\nlines\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),  # would be displayed from right to left
        ("\u0646\u0627\u0645\u200c", "\u0646\u0627\u0645\u200c"),  # what scripts need is kept
    ],
)
def test_text_is_escaped(text, wanted):
    assert element("p", text) == f"<p>{wanted}</p>"
    assert element("p", title=text) == f'<p title="{wanted}"></p>'
    element("p", text).encode()


def test_a_page_allows_its_own_style_and_script_alone():
    text = page("<t>", "lead", [section("One", "first"), section("Two", element("p", "second"))])
    policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', text)
    assert len(policy) == 1
    rules = dict(rule.split(" ", 1) for rule in policy[0].replace("&#x27;", "'").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("style", "script"):
        (content,) = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert "<title>&lt;t&gt;</title>" in text
    assert re.findall(r'<a href="(#\w+)">', text) == ["#one", "#two"]
    assert '<section id="two"><h2>Two</h2><p>second</p></section>' in text
    assert text.index("Content-Security-Policy") < text.index("<style>")  # it holds from there on


class Balanced(HTMLParser):
    """Fails unless every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "br", "input"):
            self.open.append(tag)
        assert not any(name == "style" or name.startswith("on") for name, _ in attributes)
        for name, value in attributes:
            if name in ("src", "href"):
                assert value.startswith(("#", "data:image/webp;base64,")), value

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_document(text):
    """Fails unless a page is well formed, and names nothing outside itself."""
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == [] and text.startswith("<!DOCTYPE html>\n")
    # Text may name addresses, but no element or rule of the style may load one.
    assert not re.search(r"@import|url\(|<(link|iframe|object|embed|form|base)\b", text)


def test_a_page_is_well_formed():
    check_document(page("title", "lead", [section("One", element("table", element("tr")))]))
