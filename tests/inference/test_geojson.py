"""Objects as GeoJSON."""

import json

import numpy as np

from mrcnn_jax.image_windows import Georeference
from mrcnn_jax.inference.files import output_paths
from mrcnn_jax.inference.geojson import is_ours, write_geojson
from mrcnn_jax.inference.outlines import signed_area
from mrcnn_jax.inference.paste import PastedMask
from mrcnn_jax.inference.results import Result
from mrcnn_jax.runs.categories import Categories

PLACE = Georeference((0.5, 0, 500_000, 0, -0.5, 5_000_000), "EPSG:32633")
RING = np.array(
    [
        [1, 1, 1, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 0, 1],
        [1, 0, 1, 0, 1, 0, 1],
        [1, 0, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
    ],
    bool,
)  # a square with a hole that has an island, and another part


def result_of(*masks, boxes=((1, 2, 8, 7),)):
    return Result(
        boxes=np.array(boxes, np.float32),
        scores=np.full(len(boxes), 0.75, np.float32),
        labels=np.ones(len(boxes), np.int64),
        image_size=(20, 30),
        categories=Categories((7,), ("pond",)),
        crops=tuple(PastedMask(2, 1, mask) for mask in masks) if masks else None,
    )


def write(tmp_path, result, place=None):
    write_geojson(tmp_path / "a.geojson", result, place)
    return json.loads((tmp_path / "a.geojson").read_text())


def test_parts_and_holes(tmp_path):
    content = write(tmp_path, result_of(RING))
    (feature,) = content["features"]
    assert feature["properties"] == {"category": "pond", "category_id": 7, "score": 0.75}
    assert feature["geometry"]["type"] == "MultiPolygon"
    parts = feature["geometry"]["coordinates"]
    areas = sorted([[signed_area(np.array(ring[:-1])) for ring in part] for part in parts])
    assert areas == [[1], [2], [25, -9]]  # outer rings run counterclockwise, holes clockwise
    assert all(ring[0] == ring[-1] for part in parts for ring in part)
    assert "crs" not in content


def test_coordinates_of_the_file(tmp_path):
    content = write(tmp_path, result_of(np.ones((2, 4), bool)), PLACE)
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    assert content["features"][0]["geometry"]["type"] == "Polygon"
    # Columns 1 to 5 and rows 2 to 4 of half a metre, y up.
    x, y = np.array(ring).T - np.array([[500_000], [5_000_000]])
    assert (x.min(), x.max(), y.min(), y.max()) == (0.5, 2.5, -2, -1)
    assert signed_area(np.array(ring[:-1])) == 2


def test_boxes_without_masks(tmp_path):
    for result in (result_of(), result_of(np.zeros((0, 0), bool))):
        (feature,) = write(tmp_path, result)["features"]
        assert feature["geometry"]["coordinates"] == [[[1, 2], [8, 2], [8, 7], [1, 7], [1, 2]]]


def test_only_own_files_are_replaced(tmp_path):
    write(tmp_path, result_of(RING))
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    images = [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert [path.name for path in output_paths(images, tmp_path, ".geojson", is_ours)] == [
        "a.geojson",
        "b-2.geojson",
    ]
