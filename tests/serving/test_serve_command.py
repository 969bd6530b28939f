"""``mrcnn-jax serve`` as a process of its own, over the network and in a browser."""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mrcnn_jax
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import write_run
from tests.run_command import ROOT, run_here
from tests.serving.conftest import encoded, noise

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
PHOTO = noise(48, 64)


@pytest.fixture(scope="module")
def workdir(tiny_config, tiny_weights, categories, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    # From initial weights all scores would be nearly equal.
    data = replace(tiny_config.data, canvases=((64, 96), (96, 64)), long_side=96)
    test = replace(tiny_config.test, mask_threshold=0.4)
    write_run(path, replace(tiny_config, data=data, test=test), categories)
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(0, 0.1, array.shape) for name, array in tiny_weights.items()}
    weights = {
        name: jnp.asarray(np.abs(x) if name.endswith("var") else x, jnp.float32) for name, x in drawn.items()
    }
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(7, weights, {"nothing": jnp.zeros(1)})
    return path


class Process:
    """A server at a free port, and what it has written to stderr."""

    def __init__(self, workdir, *arguments):
        command = [sys.executable, "-m", "mrcnn_jax", "serve", f"--workdir={workdir}", "--port=0", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        self.process = subprocess.Popen(
            command,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = []
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self._reader.start()
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            self.end()
            pytest.fail("".join(self.log))
        self.url = self.first_line.rpartition(" ")[2].strip()

    def end(self, number=signal.SIGTERM):
        """The exit code after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self._reader.join()
        self.process.stdout.close(), self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def server(workdir):
    server = Process(
        workdir, "--score_threshold=0", "--batch_sizes=1,2", "--max_bytes=100000", "--queue_size=16"
    )
    with httpx2.Client(base_url=server.url) as client:
        while client.get("/ready").status_code == 503:
            time.sleep(0.1)
    yield server
    assert server.end() == 0, server.log


@pytest.mark.slow
def test_what_the_server_says_at_its_start(server, workdir):
    assert server.first_line == f"step 7 of {workdir} at {server.url}\n"
    text = "".join(server.log)
    assert re.search(r"INFO compiling inference for canvas 64x96 \.\.\.\n.* INFO \.\.\. \d+ s\n", text)
    assert re.search(r"INFO ready after \d+ s\n", text)


@pytest.mark.slow
def test_its_answers_are_the_detectors(server, workdir):
    found = httpx2.post(f"{server.url}/predict", content=encoded(PHOTO), timeout=60).json()
    here = mrcnn_jax.load(workdir)(PHOTO).to_coco(1)
    there = found["images"][0]["objects"]
    assert [entry["category"] for entry in there] == [entry["category"] for entry in here]
    np.testing.assert_allclose([e["bbox"] for e in there], [e["bbox"] for e in here], atol=1e-2)


@pytest.mark.slow
def test_eight_clients_and_refused_uploads_among_them(server):
    png, status = encoded(PHOTO), []

    def ask(number):
        bodies = [png] * 12 + [png[:2000], bytes(150_000), b"no image", b""]
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            for body in np.random.default_rng(number).permutation(np.array(bodies, object)):
                answer = client.post("/predict", content=body)
                expected = {png: 200, png[:2000]: 422, bytes(150_000): 413, b"no image": 422, b"": 400}[body]
                status.append((answer.status_code, expected))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert len(status) == 8 * 16 and all(found == expected for found, expected in status)
    assert not any("Traceback" in line for line in server.log)


@pytest.mark.slow
def test_what_was_begun_is_answered_after_sigterm(workdir):
    server = Process(workdir)
    with httpx2.Client(base_url=server.url) as client:
        while client.get("/ready").status_code == 503:
            time.sleep(0.1)
    with ThreadPoolExecutor(8) as threads:
        files = [("image", ("a.png", encoded(PHOTO)))] * 8
        answers = [
            threads.submit(httpx2.post, f"{server.url}/predict", files=files, timeout=60) for _ in range(8)
        ]
        while "mrcnn_jax_images_waiting 0.0" in httpx2.get(f"{server.url}/metrics").text:
            time.sleep(0.001)
        assert server.end() == 0
        begun = [answer.result() for answer in answers if answer.exception() is None]
    assert begun and all(answer.status_code == 200 for answer in begun)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(server.url)


def test_flags_that_contradict_each_other_or_the_machine(workdir, tmp_path):
    done = run_here("serve", f"--workdir={workdir}", "--max_images=9", "--queue_size=8", directory=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: --max_images=9 must be at most --queue_size=8"
    )
    done = run_here("serve", "--workdir=nothing", directory=tmp_path)
    assert done.returncode == 1 and "nothing" in done.stderr
    done = run_here("serve", f"--workdir={workdir}", "--host=203.0.113.1", directory=tmp_path)
    assert done.returncode == 1 and "203.0.113.1" in done.stderr


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium, as from apt-get install chromium")
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ImportError:
        pytest.skip("needs playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page with a photograph, after which nothing may have gone wrong in the browser."""
    page, problems, asked = browser.new_page(viewport={"width": 1280, "height": 860}), [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    wait_for(page, "state.model !== null")
    choose(page, "photo.png", encoded(PHOTO))
    yield page
    page.close()
    # A refused upload is the only thing that Chromium notes.
    assert [text for text in problems if not text.startswith("Failed to load resource: the server")] == []
    assert all(url.startswith((server.url, "blob:")) for url in asked)


def wait_for(page, expression):
    """Waits until a script's expression is true; playwright's own way is what the page's policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.02)


def choose(page, name, content):
    page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})
    page.wait_for_selector("#picture:visible")


def pixels(page):
    """What the canvas shows."""
    return page.evaluate("$('picture').toDataURL()")


@pytest.fixture
def objects(server):
    answer = httpx2.post(f"{server.url}/predict?score_threshold=0", content=encoded(PHOTO), timeout=60)
    return answer.json()["images"][0]["objects"]


@pytest.mark.slow
def test_the_page_draws_what_was_found(page, objects, tmp_path):
    assert page.text_content("h1") == page.title() == "tiny"
    count = len(objects)
    assert re.fullmatch(f"{count} of {count} objects shown, in 64 . 48 pixels", page.text_content("#status"))
    rows = page.locator("#objects button").all_inner_texts()
    assert [row.split()[0] for row in rows] == [entry["category"].split()[0] for entry in objects]
    seen = [pixels(page)]
    for toggle in ("masks", "boxes", "labels"):
        page.uncheck(f"#{toggle}")
        seen.append(pixels(page))
    assert len(set(seen)) == 4
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_masks_are_decoded_as_here(page):
    rng = np.random.default_rng(0)
    masks = [
        rng.random((height, width)) < share
        for height, width in ((1, 1), (7, 5), (40, 90))
        for share in (0, 0.3, 1)
    ]
    for mask in masks:
        crop = page.evaluate(
            "(rle) => { const m = decodeMask(rle); return m && {...m, bits: [...m.bits]}; }",
            Rle.from_bitmap(mask).compressed(),
        )
        decoded = np.zeros(mask.shape, bool)
        if crop is not None:
            bits = np.array(crop["bits"], bool).reshape(crop["height"], crop["width"])
            decoded[crop["top"] :, crop["left"] :][: crop["height"], : crop["width"]] = bits
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.slow
def test_threshold_and_classes_choose_what_is_shown_and_saved(page, objects, tmp_path):
    threshold = round(float(np.median([entry["score"] for entry in objects])), 2)
    page.evaluate(
        "(value) => { $('threshold').value = value; $('threshold').dispatchEvent(new Event('input')); }",
        threshold,
    )
    shown = [entry for entry in objects if entry["score"] >= threshold]
    hidden = shown[0]["category"]
    page.locator("#classes label", has_text=hidden).locator("input").uncheck()
    shown = [entry for entry in shown if entry["category"] != hidden]
    assert page.locator("#objects button").count() == len(shown) < len(objects)
    with page.expect_download() as download:
        page.click("#save-json")
    assert download.value.suggested_filename == "photo-objects.json"
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["score_threshold"] == threshold and saved["images"][0]["objects"] == shown
    with page.expect_download() as download:
        page.click("#save-png")
    with Image.open(download.value.path()) as picture:
        assert picture.size == (640, 480)
    page.click("#all-classes")
    assert page.locator("#objects button").count() >= len(shown)


@pytest.mark.slow
def test_objects_are_selected_in_the_picture_and_in_the_list(page):
    pressed = page.locator("#objects button[aria-pressed=true]")
    page.locator("#objects button").first.focus()
    page.keyboard.press("Enter")
    assert pressed.count() == 1
    page.keyboard.press("Escape")
    assert pressed.count() == 0
    x, y = page.evaluate(
        "(() => { const [x, y, w, h] = state.image.objects[0].bbox; return [x + w / 2, y + h / 2]; })()"
    )
    scale = page.evaluate("$('picture').clientWidth / state.image.width")
    page.click("#picture", position={"x": x * scale, "y": y * scale})
    assert pressed.count() == 1


@pytest.mark.slow
def test_names_of_categories_are_never_html(page):
    choose(page, "<b>name</b>.png", encoded(PHOTO))
    assert page.locator("main b, header b").count() == 0
    assert "<b>cone</b>" in page.text_content("#about")


@pytest.mark.slow
def test_a_format_that_browsers_do_not_show(page):
    choose(page, "scan.tif", encoded(noise(30, 40, seed=5), "TIFF"))
    wait_for(page, "state.name === 'scan'")
    assert page.evaluate("state.photo.width") == 640  # the server's picture
    assert re.search("in 40 . 30 pixels", page.text_content("#status"))


@pytest.mark.slow
def test_a_file_that_is_refused_is_explained(page):
    choose(page, "notes.txt", b"no image")
    page.wait_for_selector("#status.problem")
    assert "notes.txt: image 1 (notes.txt): cannot be read: not an image" in page.text_content("#status")
    choose(page, "large.png", bytes(100_001))
    wait_for(page, "$('status').textContent.includes('large.png')")
    assert "the file has 101 kB; at most 100 kB are taken" in page.text_content("#status")


@pytest.mark.slow
def test_the_benchmark_finds_nothing_lost(server, tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(PHOTO))
    flags = f"--url={server.url}", "--clients=4", "--seconds=3", "--refused"
    done = run_here("benchmark", "serve", *flags, "photo.png", directory=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("lost or wrong: 0\n")
    assert re.search(
        r"answers by status: 200: \d+\nrefused uploads by status: 400: .*413: .*422: ", done.stdout
    )
    done = run_here(
        "benchmark", "serve", "--url=http://127.0.0.1:9", "--seconds=0.5", "photo.png", directory=tmp_path
    )
    assert done.returncode == 1 and "error: an image got 0: " in done.stderr
