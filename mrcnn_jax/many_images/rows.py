"""A row for each image, as Parquet and JSON lines have it: what was found in it, or why it failed.

Every row has every field; what there is not is None:

    image_id    int64      from 1, in the order of the input
    image       string     its path relative to --input, or its path or URI as it is listed
    width       int32      of the upright image in pixels; None if it failed
    height      int32
    error       string     why it failed; None if it did not
    objects     list       best first; None if it failed. Each is an entry of a COCO results list:
        category_id     int64
        category        string
        bbox            list of 4 float64   x, y, width, height in pixels, rounded to 0.001
        score           float64             0 to 1, rounded to 0.000001
        segmentation    struct              size [height, width] and counts: COCO's compressed RLE
        keypoints       list of float64     x, y, 1 for each
"""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow

from mrcnn_jax.inference.results import Result
from mrcnn_jax.json_files import dumps

Row = dict[str, Any]

FIELDS = ("image_id", "image", "width", "height", "error", "objects")
_OF_OBJECTS = ("category_id", "category", "bbox", "score", "segmentation", "keypoints")


def found(image_id: int, name: str, result: Result) -> Row:
    """The row of an image with its objects."""
    height, width = result.image_size
    objects = [{field: entry.get(field) for field in _OF_OBJECTS} for entry in result.to_coco(image_id)]
    return dict(zip(FIELDS, (image_id, as_text(name), width, height, None, objects), strict=True))


def failed(image_id: int, name: str, error: str) -> Row:
    """The row of an image that could not be read."""
    return dict(zip(FIELDS, (image_id, as_text(name), None, None, as_text(error), None), strict=True))


def as_text(name: str) -> str:
    """A name in characters that UTF-8 can hold, as ``json_files.dumps`` writes it."""
    return json.loads(dumps(name))


def to_coco(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """The entries of a COCO results list of all objects, as ``mrcnn-jax predict`` writes them."""
    for row in rows:
        for entry in row["objects"] or ():
            named = {"image_id": row["image_id"], "file_name": row["image"], **entry}
            yield {name: value for name, value in named.items() if value is not None}


@functools.cache
def schema() -> pyarrow.Schema:
    """The schema of the Parquet files."""
    numbers = pyarrow.list_(pyarrow.float64())
    rle = pyarrow.struct([("size", pyarrow.list_(pyarrow.int32())), ("counts", pyarrow.string())])
    kinds = (pyarrow.int64(), pyarrow.string(), numbers, pyarrow.float64(), rle, numbers)
    objects = pyarrow.list_(pyarrow.struct(list(zip(_OF_OBJECTS, kinds, strict=True))))
    kinds = (pyarrow.int64(), pyarrow.string(), pyarrow.int32(), pyarrow.int32(), pyarrow.string(), objects)
    return pyarrow.schema(list(zip(FIELDS, kinds, strict=True)))
