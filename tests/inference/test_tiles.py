"""Images found in tile by tile, by a model whose only object covers its image."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.partial_results import PartialResults
from mrcnn_jax.inference.pictures import write_results
from mrcnn_jax.inference.tiles import TiledDetector


@pytest.fixture
def tiled(model, config, categories):
    return TiledDetector(Detector(model, config, categories, batch_size=2), tile=32, overlap=8)


@pytest.fixture
def image(tmp_path):
    """Of which every tile has the model's score 1."""
    Image.fromarray(np.full((32, 90, 3), 255, np.uint8)).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_pieces_in_all_tiles_are_one_object(tiled, image, model):
    found = tiled(image)
    assert len(found) == 1 and found.boxes.tolist() == [[0, 0, 90, 32]]
    assert found.masks.shape == (1, 32, 90) and found.masks[:, 3:-3].all()  # corners are rounded
    assert found.path == image
    assert model.batches == [(2, 32, 64, 3)] * 2  # four tiles of 32 x 32, all on one canvas


def test_pictures_and_geojson(tiled, image, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = [broken, image]
    pictures = [tmp_path / "out" / path.name for path in images]
    features = [path.with_suffix(".geojson") for path in pictures]
    with PartialResults(tmp_path / "out" / "partial", {}, images, pictures) as partial:
        problems = write_results(
            tiled, images, pictures, partial, score_threshold=0.5, annotations=False, geojson=features
        )
    (error,) = problems.unreadable
    assert "broken.png: cannot be read" in str(error)
    assert not pictures[0].exists() and not features[0].exists()
    with Image.open(pictures[1]) as picture:
        assert picture.size[0] % 90 == 0  # enlarged
    (feature,) = json.loads(features[1].read_text())["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert np.min(ring, axis=0).tolist() == [0, 0] and np.max(ring, axis=0).tolist() == [90, 32]


def test_an_image_too_large_to_be_drawn_has_results(tiled, image, tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn_jax.inference.pictures.can_be_drawn", lambda size: False)
    pictures = [tmp_path / "out" / "a.png"]
    with PartialResults(tmp_path / "out" / "partial", {}, [image], pictures) as partial:
        write_results(tiled, [image], pictures, partial, score_threshold=0.5, annotations=False)
        ((_, found),) = partial.read([image])
    assert found["drawn"] == 1 and not pictures[0].exists()


def test_an_overlap_that_is_too_large(tiled, model, config, categories):
    with pytest.raises(ValueError, match="overlap is 17; it must be from 0 to half the tile"):
        TiledDetector(Detector(model, config, categories), tile=32, overlap=17)
