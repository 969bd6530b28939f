"""The documentation's site: it builds without a warning, is complete, and loads nothing from elsewhere."""

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
# What a page loads, by tag and attribute; links to other pages are not loaded.
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "srcset")}


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8"))))


class Page(HTMLParser):
    """What a page loads, where it links to, and the ids in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in LOADED and ("rel", "canonical") not in attributes:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.ids.add(value)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert len(pages) > 30
    for path, page in pages.items():
        assert page.loaded
        for address in page.loaded:
            assert not urlsplit(address).scheme and not address.startswith("//"), f"{path}: {address}"
            if path.name != "404.html":  # its addresses are those of a server's root
                assert (path.parent / urlsplit(address).path).exists(), f"{path}: {address}"
    for path in site.rglob("*.css"):
        elsewhere = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)]*", path.read_text("utf-8"))
        assert elsewhere == [], path


def test_links_lead_somewhere(pages):
    """MkDocs checks those that are written as links to pages; these are all, also the hooks' own."""
    for path, page in pages.items():
        for link in page.links if path.name != "404.html" else ():
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.exists(), f"{path}: {link}"
            if address.fragment and target in pages and not address.fragment.startswith("__"):
                assert unquote(address.fragment) in pages[target].ids, f"{path}: {link}"


def test_the_start_page_is_the_readme_and_links_work_in_both(site):
    start = (site / "index.html").read_text("utf-8")
    assert "Two commands" in start and 'href="data.html#data-distillation"' in start
    assert 'href="source/mrcnn_jax/ops/roi_align/plain.py.html"' in start
    assert "def bilinear(" in text_of(site / "source/mrcnn_jax/ops/roi_align/plain.py.html")
    assert 'src="shapes.jpg"' in start


def test_the_search_index_has_pages_and_api_but_no_source_files(site):
    entries = json.loads((site / "search/search_index.json").read_text("utf-8"))["docs"]
    locations = {entry["location"].partition("#")[0] for entry in entries}
    assert {"index.html", "faq.html", "api/ops.html", "notebooks/roi_align.html"} <= locations
    assert not any(location.startswith("source/") for location in locations)
    assert any("RoIAlign" in entry["text"] for entry in entries)


def test_shapes_in_signatures_are_legible(site):
    ops = text_of(site / "api/ops.html")
    assert 'boxes: Shaped[Array, "n 4"]' in ops
    assert '-> Float[Array, "n p p c"]' in ops
    assert 'map_size: Int[Array, "2"] | None' in ops  # not the number 2
    assert 'scores: Float[Array, "n"]' in ops  # nor a type n


def test_fields_are_described_by_their_comments(site):
    config = text_of(site / "api/config.html")
    assert "compute type of backbone and heads" in config  # behind the field
    assert "Pixels: results are those of an image padded to a multiple of this." in config  # above it
    assert ":func:" not in config


def test_a_page_that_the_navigation_lacks_is_an_error(tmp_path):
    """A small site with the rules of ours."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("index.md", "new.md"):
        (docs / name).write_text("# A page", encoding="utf-8")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {docs}\nhooks: []\nplugins: []\nextra_css: []\n"
        "theme: {name: mkdocs}\nnav: [index.md]\n",
        encoding="utf-8",
    )
    done = build(config, tmp_path / "site")
    assert done.returncode != 0 and "new.md" in done.stderr
    (docs / "new.md").unlink()
    assert build(config, tmp_path / "site").returncode == 0
