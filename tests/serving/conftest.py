"""Image files, and a server around the tiny model with random weights."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mrcnn_jax.config import Config
from mrcnn_jax.inference import detector as detectors
from mrcnn_jax.inference.detector import Detector, mesh_of_batch
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.serving.app import Server
from mrcnn_jax.serving.uploads import Limits

LIMITS = Limits(bytes=200_000, pixels=100_000, images=3, images_at_once=6)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def categories() -> Categories:
    return Categories(
        ids=(3, 7, 8, 9),
        names=("ball", "figure", "<b>cone</b>", "cube"),
        keypoint_labels=(2,),
        keypoint_names=tuple("abcdefghi"),
        skeleton=((0, 1),),
        sigmas=(0.05,) * 9,
    )


@pytest.fixture(scope="module")
def detector(
    shared_programs: None,
    tiny_blueprint: Blueprint,
    tiny_config: Config,
    tiny_weights: Any,
    categories: Categories,
) -> Detector:
    mesh = mesh_of_batch(1, 1)
    predict_fn = detectors.make_predict_fn(tiny_blueprint, tiny_config, mesh)(tiny_weights)
    return Detector(predict_fn, tiny_config, categories, step=7)


@pytest.fixture(scope="module")
def serve() -> Callable[..., Any]:
    """A client of a server of a detector, as a context; it is ready to predict."""

    @contextlib.contextmanager
    def running(detector: Detector, limits: Limits = LIMITS, **options: Any) -> Iterator[TestClient]:
        settings: dict[str, Any] = {"name": "tiny", "score_threshold": 0.0, "wait": 0.0, **options}
        server = Server([detector], limits=limits, **settings)
        with TestClient(server.app, raise_server_exceptions=False) as client:
            while client.get("/ready").status_code == 503:
                time.sleep(0.01)
            yield client

    return running


@pytest.fixture(scope="module")
def client(detector: Detector, serve: Callable[..., Any]) -> Iterator[TestClient]:
    with serve(detector) as client:
        yield client
