"""Objects as GeoJSON (RFC 7946), for geographic information systems such as QGIS."""

from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.image_windows import Georeference
from mrcnn_jax.inference.outlines import signed_area
from mrcnn_jax.inference.results import Result
from mrcnn_jax.json_files import dumps, replacing

GENERATOR = "mrcnn_jax predict"  # identifies our own files


def write_geojson(path: Path, result: Result, georeference: Georeference | None) -> None:
    """Writes the objects as a FeatureCollection; the file is replaced, atomically.

    Each is a Polygon or MultiPolygon, with the holes of its mask, or the rectangle of its box if there are no
    masks or its mask is empty; "properties" have ``category``, ``category_id`` and ``score``. Coordinates are
    those of the image's file, with the member ``crs`` of GeoJSON's version of 2008, which GDAL and QGIS read,
    if they have an EPSG number. Without ``georeference`` they are pixels, x right and y down.
    """
    collection: dict[str, Any] = {"type": "FeatureCollection", "generator": GENERATOR}
    if georeference is not None and georeference.crs is not None:
        name = f"urn:ogc:def:crs:{georeference.crs.replace(':', '::')}"
        collection["crs"] = {"type": "name", "properties": {"name": name}}
    outlines = result.polygons() or [[]] * len(result)
    collection["features"] = [
        {
            "type": "Feature",
            "properties": {
                "category": result.categories.names[label - 1],
                "category_id": result.categories.ids[label - 1],
                "score": round(float(result.scores[i]), 6),
            },
            "geometry": _geometry(outlines[i] or [_corners(result.boxes[i])], georeference),
        }
        for i, label in enumerate(result.labels.tolist())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(dumps(collection) + "\n", encoding="utf-8")


def is_ours(path: Path) -> bool:
    """Whether ``write_geojson`` wrote this file."""
    mark = f'{{"type": "FeatureCollection", "generator": "{GENERATOR}"'.encode()
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _geometry(polygons: list[np.ndarray], georeference: Georeference | None) -> dict[str, Any]:
    """Outlines in pixels, outer ones and holes, as a geometry whose rings run as RFC 7946 has them."""
    outer = [polygon for polygon in polygons if signed_area(polygon) > 0]
    parts = [[polygon] for polygon in outer]
    for hole in polygons:
        if signed_area(hole) < 0:
            around = [i for i, polygon in enumerate(outer) if _contains(polygon, hole)]
            parts[min(around, key=lambda i: signed_area(outer[i]))].append(hole)
    rings = [[_ring(polygon, georeference, outer=not i) for i, polygon in enumerate(part)] for part in parts]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _ring(polygon: np.ndarray, georeference: Georeference | None, *, outer: bool) -> list[Any]:
    """The closed ring of a polygon, as points x y; outer ones run counterclockwise, where y points up."""
    points = polygon if georeference is None else georeference.place(polygon)
    if (signed_area(points) > 0) != outer:
        points = points[::-1]
    return [*points.tolist(), points[0].tolist()]


def _contains(polygon: np.ndarray, hole: np.ndarray) -> bool:
    """Whether the first pixel of a hole lies in a polygon: a ray from it to the left crosses it oddly often.

    A hole's outline begins at its topmost left corner, or ends there; the pixel is right below.
    """
    corner = hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]]
    x, y = corner + 0.5
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    crossed = (x1 == x2) & (x1 < x) & ((y1 > y) != (y2 > y))
    return bool(crossed.sum() % 2)


def _corners(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box.tolist()
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
