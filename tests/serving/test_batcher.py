"""Which images become one batch, and when it starts. The model is a function that shows its batches."""

import queue
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from mrcnn_jax.config import Config, DataConfig
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.serving.batcher import Batcher
from mrcnn_jax.serving.metrics import Metrics
from mrcnn_jax.serving.uploads import Upload
from mrcnn_jax.types import Detections
from tests.serving.conftest import encoded

WIDE, TALL = (16, 32), (32, 16)
CONFIG = Config(data=DataConfig(test_short_side=32, long_side=64, canvases=((32, 64), (64, 32))))


def upload(value, size=WIDE):
    """A uniform image: its value is what the model's score tells."""
    return Upload("", "the image", encoded(np.full((*size, 3), value, np.uint8)), size)


class Model:
    """Finds one box whose score is the image's value / 255; ``batches`` gets the values of each batch."""

    def __init__(self):
        self.batches = queue.Queue()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, images, image_sizes):
        self.batches.put(images[:, 0, 0, 0].tolist())
        assert self.may_end.wait(timeout=20)
        scores = images[:, 0, 0, :1] / np.float32(255)
        boxes = np.pad(image_sizes[:, None, ::-1].astype(np.float32), [(0, 0), (0, 0), (2, 0)])
        labels = np.ones((len(images), 1), np.int32)
        return Detections(boxes=boxes, scores=scores, labels=labels, valid=labels == 1)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def start(model):
    batchers = []

    def start(*batch_sizes, wait):
        categories = Categories(ids=(1,), names=("ball",))
        detectors = [Detector(model, CONFIG, categories, batch_size=size) for size in batch_sizes]
        batcher = Batcher(detectors, Metrics(), wait=wait, on_failure=lambda: None)
        batchers.append(batcher)
        batcher.start()
        for size in sorted(2 * batch_sizes):  # compiled for both canvases
            assert model.batches.get(timeout=20) == [0] * size
        return batcher

    yield start
    model.may_end.set()
    for batcher in batchers:
        batcher.close()


def values(*futures):
    return [round(255 * float(future.result(timeout=20).scores[0])) for future in futures]


def test_a_full_batch_starts_at_once(start, model):
    batcher = start(2, wait=60)
    assert values(batcher.submit(upload(10)), batcher.submit(upload(20))) == [10, 20]
    assert model.batches.get() == [10, 20]


def test_a_batch_that_is_not_full_starts_in_time(start, model):
    batcher = start(3, wait=0.01)
    assert values(batcher.submit(upload(10))) == [10]
    assert model.batches.get() == [10, 0, 0]


def test_a_batch_has_the_smallest_size_that_holds_it(start, model):
    batcher = start(4, 1, wait=0.05)
    assert values(batcher.submit(upload(10))) == [10]
    assert values(batcher.submit(upload(20)), batcher.submit(upload(30))) == [20, 30]
    assert values(*[batcher.submit(upload(40 + i)) for i in range(4)]) == [40, 41, 42, 43]
    assert [model.batches.get() for _ in range(3)] == [[10], [20, 30, 0, 0], [40, 41, 42, 43]]


def test_images_of_other_canvases_wait_for_their_own(start, model):
    batcher = start(2, wait=0.05)
    sizes = (WIDE, TALL, WIDE, TALL, TALL)
    futures = [batcher.submit(upload(10 * (i + 1), size)) for i, size in enumerate(sizes)]
    assert values(*futures) == [10, 20, 30, 40, 50]
    assert sorted(model.batches.get() for _ in range(3)) == [[10, 30], [20, 40], [50, 0]]


def test_while_a_batch_is_computed_only_full_ones_start(start, model):
    batcher = start(2, wait=0.01)
    model.may_end.clear()
    futures = [batcher.submit(upload(10))]
    assert model.batches.get(timeout=20) == [10, 0]
    futures.append(batcher.submit(upload(20)))
    with pytest.raises(queue.Empty):
        model.batches.get(timeout=0.1)
    futures.append(batcher.submit(upload(30)))
    assert model.batches.get(timeout=20) == [20, 30]
    model.may_end.set()
    assert values(*futures) == [10, 20, 30]


def test_what_nobody_waits_for_is_not_computed(start, model):
    batcher = start(1, wait=0)
    model.may_end.clear()
    futures = [batcher.submit(upload(value)) for value in (10, 20, 30, 40)]
    assert sorted([model.batches.get(timeout=20), model.batches.get(timeout=20)]) == [[10], [20]]
    assert futures[2].cancel() and not futures[0].cancel()
    model.may_end.set()
    assert values(futures[0], futures[1], futures[3]) == [10, 20, 40]
    assert model.batches.get() == [40]
    with pytest.raises(CancelledError):
        futures[2].result()


def test_a_damaged_image_spoils_no_other(start):
    batcher = start(2, wait=0.01)
    good, whole = batcher.submit(upload(10)), upload(20)
    bad = batcher.submit(Upload("", "image 2 (b.png)", whole.data[:60], WIDE))
    assert values(good) == [10]
    with pytest.raises(ValueError, match=r"image 2 \(b.png\): cannot be read"):
        bad.result(timeout=20)


def test_closing_computes_what_waits(start, model):
    batcher = start(2, wait=60)
    future = batcher.submit(upload(10))
    batcher.close()
    assert future.done() and values(future) == [10] and model.batches.get() == [10, 0]
