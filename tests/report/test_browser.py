"""The pages in a browser, from disk, without a network: what they load, run and show.

Needs Debian's ``chromium`` and ``pip install playwright``.
"""

import shutil

import numpy as np
import pytest

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.data.summary import summarise
from mrcnn_jax.report.data_report import write_data_report
from mrcnn_jax.report.run_report import write_report
from tests.report.hand_made import FILES, make_run

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    config = make_run(folder)
    write_report(folder / "run", folder / "report.html", detections=folder / "found.json")
    summary = summarise(open_validation_source(config), config.data, keypoints=False)
    picture = np.full((640, 640, 3), 120, np.uint8)
    write_data_report(
        folder / "data.html",
        summary,
        findings=(),
        selection=[],
        pictures=[(picture, "one"), (picture, "two")],
    )
    return folder


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"needs {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Opens a page; fails at the end if it said anything on the console or asked for another file."""
    contexts, said = [], []

    def open_page(name, *, width=1280, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((folder / name).as_uri())
        page.on("request", lambda request: request.url.startswith("data:") or said.append(request.url))
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("name", ["report.html", "data.html"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window_and_shows_its_pictures(open_page, name, width):
    page = open_page(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.clientWidth])")
    assert len(sizes) == (6 if name == "report.html" else 2)
    assert all(natural > 0 and shown > 100 for natural, shown in sizes)
    # The style is applied, which its policy would prevent if the hash were wrong.
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "8px"
    assert page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].every(svg => svg.clientWidth > 150)"
    )


def test_dark_and_light(open_page):
    def colours(dark):
        page = open_page("report.html", dark=dark)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return [paper, page.evaluate("getComputedStyle(document.querySelector('svg text:not(.ink)')).fill")]

    assert colours(dark=False) == ["rgb(255, 255, 255)", "rgb(93, 103, 113)"]
    assert colours(dark=True) == ["rgb(20, 24, 28)", "rgb(154, 165, 176)"]


def test_tables_are_sorted_by_keyboard(open_page):
    page = open_page("report.html")
    column = "[...document.querySelectorAll('#categories tbody tr')].map(row => row.cells[1].textContent)"
    assert page.evaluate(column) == ["2", "1", "0"]
    heading = page.get_by_role("button", name="objects", exact=True)
    heading.focus()
    for wanted in (["2", "1", "0"], ["0", "1", "2"]):
        page.keyboard.press("Enter")
        assert page.evaluate(column) == wanted
    assert page.locator("#categories th[aria-sort]").get_attribute("aria-sort") == "ascending"
    box_ap = "[...document.querySelectorAll('#categories tbody tr')].map(row => row.cells[2].textContent)"
    page.get_by_role("button", name="box AP", exact=True).click()
    assert page.evaluate(box_ap) == ["100.0", "25.2", "-"]  # what was not measured stays at the end
    page.get_by_role("button", name="box AP", exact=True).click()
    assert page.evaluate(box_ap) == ["25.2", "100.0", "-"]


def test_pictures_are_enlarged(open_page):
    page = open_page("report.html")
    first = page.locator("#pictures .zoom").first
    small = first.locator("img").first.bounding_box()["width"]
    first.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible() and dialog.locator("img").first.bounding_box()["width"] > 1.5 * small
    assert FILES[1] in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()


def test_what_got_around_the_escaping_would_do_nothing(browser, folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    injected = "<script>document.title = 'taken'</script><img src='x' onerror=\"document.title = 'taken'\">"
    path = folder / "injected.html"
    path.write_text(text.replace("<main>", f"<main>{injected}", 1), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.title() == "Report on run" and page.locator("main img[onerror]").count() == 1
    page.close()


def test_names_are_text(open_page):
    page = open_page("report.html")
    assert page.locator("main b:text-is('ball')").count() == 0
    assert page.get_by_text("<b>ball</b>", exact=True).count() > 0
