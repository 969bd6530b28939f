"""Requests to a server of the tiny model, without a network."""

import base64
import hashlib
import io
import re
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from starlette.testclient import TestClient

from mrcnn_jax.inference.canvases import canvases_of_size, one_size_per_canvas
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.serving.app import Server
from tests.run_command import ROOT
from tests.serving.conftest import LIMITS, encoded, noise

PHOTO = noise(40, 60)
PNG = encoded(PHOTO)


def files(*contents):
    return [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_an_image_as_the_body(client, detector):
    answer = client.post("/predict", content=PNG, headers={"Content-Type": "image/png"})
    (image,) = answer.json()["images"]
    objects = image.pop("objects")
    assert answer.status_code == 200 and answer.json()["score_threshold"] == 0
    assert image == {"id": 1, "file_name": "", "height": 40, "width": 60}
    assert objects and objects == detector(PHOTO).to_coco(1)
    assert {"bbox", "score", "category_id", "category", "segmentation"} <= set(objects[0])
    assert client.post("/predict", content=PNG).json() == answer.json()


def test_several_images_as_a_form(client, detector):
    photos = [PHOTO, noise(50, 30, seed=1)]
    answer = client.post("/predict", files=files(*map(encoded, photos)))
    images = answer.json()["images"]
    assert [image["file_name"] for image in images] == ["0.png", "1.png"]
    for number, (image, photo) in enumerate(zip(images, photos, strict=True), start=1):
        assert image["objects"] == detector(photo).to_coco(number)


def test_a_name_that_no_utf8_can_hold(client):
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    part = (
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="\\ud800\xe9"\r\n\r\n'
        + PNG
        + b"\r\n--x--\r\n"
    )
    (image,) = client.post("/predict", content=part, headers=headers).json()["images"]
    assert image["file_name"] == "\\ud800\xe9"


def test_the_threshold_leaves_weak_objects_out(client, detector):
    result = detector(PHOTO)
    threshold = float(result.scores[2])
    answer = client.post(f"/predict?score_threshold={threshold!r}", content=PNG)
    assert answer.json()["images"][0]["objects"] == result.above(threshold).to_coco(1)
    assert client.post("/predict?score_threshold=1", content=PNG).json()["images"][0]["objects"] == []


@pytest.mark.parametrize(
    "asked", [{"params": {"format": "png"}}, {"headers": {"Accept": "image/png, */*;q=.5"}}]
)
def test_a_picture(client, detector, asked):
    answer = client.post("/predict", files=files(PNG), **asked)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), draw(PHOTO, detector(PHOTO)))


def test_photographs_are_turned_upright(client, detector):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = encoded(PHOTO, "JPEG", exif=exif)
    (image,) = client.post("/predict", content=turned).json()["images"]
    assert (image["height"], image["width"]) == (60, 40)
    assert image["objects"] == detector(Image.open(io.BytesIO(turned))).to_coco(1)


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(100)))
)
LARGE = bytes(LIMITS.bytes + 1)
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
FIELD = {"score_threshold": "0.5"}
UNNAMED = b'--x\r\nContent-Disposition: form-data; name="a"; filename=""\r\n\r\nno\r\n' * 2 + b"--x--\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"content": b""}, 400, "the body is empty; send an image"),
        ({"files": files(b"")}, 400, r"image 1 \(0.png\): the file is empty"),
        ({"data": FIELD, "files": files(PNG)}, 400, r"'score_threshold' has no file; .*\?score"),
        ({"files": files(*[PNG] * 4)}, 400, "Too many files. Maximum number of files is 3"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "Missing boundary"),
        ({"content": b"--x\r\n\r\n--x--\r\n", "headers": FORM}, 400, '"name" must be provided'),
        ({"content": b"--x--\r\n", "headers": FORM}, 400, "the form has no files"),
        ({"content": LARGE}, 413, "more than 200000 bytes"),
        ({"content": iter([LARGE[:100_000]] * 3)}, 413, "more than 200000 bytes"),  # without Content-Length
        ({"files": files(LARGE)}, 413, "more than 200000 bytes"),
        ({"content": BOMB}, 413, "the image has 9000 x 9000 pixels; must have at most 100000"),
        ({"json": {"path": "/etc/passwd"}}, 415, "'application/json'; must be image/"),
        ({"data": {"path": "/etc/passwd"}}, 415, "curl, use -F image=@photo.jpg"),
        ({"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "Content-Encoding is 'gzip'"),
        ({"content": b"not an image"}, 422, "the image: cannot be read: not an image"),
        ({"content": b"PK\3\4" + bytes(99)}, 422, "seems to be ZIP"),
        ({"content": PNG[:2000]}, 422, "the image: cannot be read: image file is truncated"),
        ({"files": files(PNG, b"no", PNG)}, 422, r"image 2 \(1.png\): cannot be read: not an image"),
        ({"files": files(PNG, PNG[:99])}, 422, r"image 2 \(1.png\): cannot be read: "),
        ({"content": UNNAMED, "headers": FORM}, 422, "image 1: cannot be read: .*; image 2: cannot be read"),
        ({"content": PNG, "params": {"score_threshold": "nan"}}, 400, "score_threshold is 'nan'; .* 0 to 1"),
        ({"content": PNG, "params": {"score_threshold": "1.5"}}, 400, "score_threshold is '1.5'"),
        ({"content": PNG, "params": {"threshold": "1"}}, 400, "unknown parameter 'threshold'"),
        ({"content": PNG, "params": {"format": "gif"}}, 400, "format is 'gif'; must be json or png"),
        ({"files": files(PNG, PNG), "params": {"format": "png"}}, 400, "of one image, but there are 2"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(client, request_, status, message):
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"} and re.search(message, answer.json()["error"])


def test_other_paths_and_methods(client):
    assert client.get("/predict").status_code == 405
    for path in ("/etc/passwd", "/..%2f..%2fetc/passwd", "/page_files/page.js"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json() == {"error": "Not Found"}


def test_probes_in_the_manifest_are_answered(client):
    deployment, _ = yaml.safe_load_all((ROOT / "docs" / "serving" / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probes = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")
    }
    assert probes == {"startup": "/ready", "readiness": "/ready", "liveness": "/health"}
    assert all(client.get(path).status_code == 200 for path in (*probes.values(), "/metrics"))


def test_the_model_is_described(client):
    model = client.get("/model").json()
    assert (model["name"], model["step"], model["masks"]) == ("tiny", 7, True)
    assert [category["id"] for category in model["categories"]] == [3, 7, 8, 9]
    assert model["categories"][1]["skeleton"] == [[1, 2]]
    assert model["limits"] == {"bytes": 200_000, "pixels": 100_000, "images": 3}


class Held:
    """The detector's function, which computes once it is released, and fails if it is told to."""

    def __init__(self, detector):
        self._predict_fn = detector._predict_fn
        self.started, self.released = threading.Semaphore(0), threading.Event()
        self.broken = False
        self.released.set()

    def __call__(self, *arguments):
        self.started.release()
        assert self.released.wait(timeout=20)
        if self.broken:
            raise RuntimeError("out of memory at /home/user/secret")
        return self._predict_fn(*arguments)


@pytest.fixture
def held(detector):
    return Held(detector)


@pytest.fixture
def held_client(detector, held, serve):
    with serve(
        Detector(held, detector.config, detector.categories), replace(LIMITS, images_at_once=3)
    ) as client:
        held.started.acquire()  # the compilation
        yield client


def test_a_full_server_refuses_with_503_and_loses_nothing(held, held_client):
    held.released.clear()
    with ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(held_client.post, "/predict", content=PNG) for _ in range(2)]
        held.started.acquire(), held.started.acquire()
        refused = held_client.post("/predict", files=files(PNG, PNG))
        held.released.set()
        assert [done.result().status_code for done in accepted] == [200, 200]
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
    assert "takes at most 3" in refused.json()["error"]
    assert held_client.post("/predict", files=files(PNG, PNG, PNG)).status_code == 200


def test_a_failing_device_gives_500_without_insides_and_ends_in_ill_health(held, held_client, caplog):
    held.broken = True
    for failures in range(1, 4):
        answer = held_client.post("/predict", content=PNG)
        assert answer.status_code == 500
        assert answer.json() == {"error": "the server failed; its log says why"}
        assert held_client.get("/health").status_code == (503 if failures == 3 else 200)
    assert "out of memory" in caplog.text  # in the log
    held.broken = False
    assert held_client.post("/predict", content=PNG).status_code == 200
    assert held_client.get("/health").json() == {"status": "ok"}


def server_of(predict_fn, detector, **options):
    held = Detector(predict_fn, detector.config, detector.categories)
    return Server([held], name="tiny", limits=LIMITS, score_threshold=0.5, wait=0.0, **options)


def test_while_the_model_is_compiled_the_server_lives_but_is_not_ready(detector, held):
    held.released.clear()
    with TestClient(server_of(held, detector).app) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        refused = client.post("/predict", content=PNG)
        assert refused.status_code == 503 and "compiled" in refused.json()["error"]
        held.released.set()
        while client.get("/ready").status_code == 503:
            time.sleep(0.01)


def test_a_model_that_cannot_be_compiled_stops_the_server(detector, held):
    held.broken, stopped = True, threading.Event()
    server = server_of(held, detector, on_failure=stopped.set)
    with TestClient(server.app):
        assert stopped.wait(timeout=20)
    assert "out of memory" in str(server.batcher.failure)


def test_the_metrics_count(detector, serve):
    with serve(detector) as client:
        client.post("/predict", files=files(PNG, PNG))
        client.post("/predict", content=b"")
        client.get("/a/stranger's/path")
        text = client.get("/metrics").text
    for line in (
        'mrcnn_jax_requests_total{path="/predict",status="200"} 1.0',
        'mrcnn_jax_requests_total{path="/predict",status="400"} 1.0',
        'mrcnn_jax_requests_total{path="other",status="404"} 1.0',
        "mrcnn_jax_images_total 2.0",
        "mrcnn_jax_batch_seconds_count 2.0",
        "mrcnn_jax_request_seconds_count 1.0",
        "mrcnn_jax_ready 1.0",
    ):
        assert f"\n{line}\n" in text


def test_the_log_has_a_line_for_each_prediction_and_error(client, caplog):
    with caplog.at_level("INFO"):
        client.post("/predict?score_threshold=1", files=files(PNG, PNG))
        client.get("/no%0Asuch/path")
        client.get("/health")
    first, second = (record.message for record in caplog.records if record.name.endswith("record"))
    assert re.fullmatch(r"testclient POST /predict 200 \d+ ms 2 images, 0 objects", first)
    assert re.fullmatch(r"testclient GET /no\\nsuch/path 404 \d+ ms Not Found", second)  # on one line


def test_the_page_is_one_document_that_may_load_nothing_else(client):
    answer = client.get("/")
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert content and policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"(?:src|href)=|//[a-z]+\.|@import|innerHTML|style=\"", answer.text)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_all_canvases_are_compiled_before_the_first_request(tiny_config):
    canvases = ((800, 1344), (1344, 800), (1088, 1088))
    data = replace(tiny_config.data, canvases=canvases, test_short_side=800, long_side=1333)
    found = one_size_per_canvas(replace(tiny_config, data=data))
    assert set(found) == {((800, 1344),), ((1344, 800),)}  # a square image is smaller than the third
    assert all(canvases_of_size(replace(tiny_config, data=data), size) == key for key, size in found.items())
