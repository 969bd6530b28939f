"""The fields of a record, and random access to the records in a folder's ArrayRecord files.

TFDS would take the fields from the folder's ``features.json``, and import the Python modules that it names.
Records may come from strangers, so they are read by the fields that are defined here.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mrcnn_jax.data.tensorflow import array_record_data_source, tfds
from mrcnn_jax.json_files import read_json

_PER_OBJECT = ("labels", "crowd", "ids", "areas", "keypoints")
DATASET, SPLIT = "coco_objects", "images"


def record_features(*, mask_grid: int, num_keypoints: int) -> tfds.features.FeaturesDict:
    """The fields of a record with masks of ``mask_grid`` cells per axis and ``num_keypoints`` keypoints."""
    tensor = tfds.features.Tensor
    features = {
        "image": tfds.features.Image(doc="the unchanged file; apply its EXIF orientation"),
        "name": tfds.features.Text(doc="file name, relative to the image folder"),
        "id": tfds.features.Scalar(np.int64),
        "size": tensor(shape=(2,), dtype=np.int32, doc="height and width, upright"),
        "boxes": tensor(shape=(None, 4), dtype=np.float32, doc="x1 y1 x2 y2 in pixels, clipped"),
        "labels": tensor(shape=(None,), dtype=np.int32, doc="from 1, see categories.json"),
        "crowd": tensor(shape=(None,), dtype=np.bool_),
        "ids": tensor(shape=(None,), dtype=np.int64, doc="annotation ids"),
        "areas": tensor(shape=(None,), dtype=np.float32, doc="in square pixels"),
        "masks": tensor(
            shape=(None, _mask_bytes(mask_grid)),
            dtype=np.uint8,
            encoding="zlib",
            doc=f"{mask_grid} x {mask_grid} cells over the box, row by row, eight per byte, highest bit "
            "first; all 0: no mask",
        ),
    }
    if num_keypoints:
        features["keypoints"] = tensor(
            shape=(None, 3 * num_keypoints), dtype=np.float32, doc="x, y, visibility of each keypoint"
        )
    return tfds.features.FeaturesDict(features)


def _mask_bytes(mask_grid: int) -> int:
    return -(-(mask_grid**2) // 8)


class _Shard(NamedTuple):
    """A file and its records that are read, in the form that ArrayRecord expects."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _check_objects(record: dict[str, Any]) -> None:
    """Raises ValueError unless all fields are of as many objects, and of finite numbers."""
    boxes = record["boxes"]
    lengths = {name: len(record[name]) for name in ("boxes", *_PER_OBJECT) if name in record}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the fields have different numbers of objects: {lengths}")
    if not (boxes[:, 2:] >= boxes[:, :2]).all():
        raise ValueError(f"boxes must be x1 y1 x2 y2, got {boxes.tolist()}")
    for name in ("boxes", "areas", "keypoints"):
        if name in record and not np.isfinite(record[name]).all():
            raise ValueError(f"{name} must be finite, got {record[name].tolist()}")


class RecordFiles:
    """The records of a folder, in order: ``files[3]`` is the dict of the fourth one's fields.

    ``image`` is the bytes of its file. Of the folder's TFDS metadata only the number of records in each file
    is used. Raises ValueError, or nearly anything for damaged metadata, unless they are ArrayRecord files;
    ``files[3]`` may raise nearly anything for a damaged record.
    """

    def __init__(self, folder: Path, *, mask_grid: int, num_keypoints: int) -> None:
        info = read_json(folder / "dataset_info.json")
        if (made := info["fileFormat"]) != "array_record":
            raise ValueError(f"the file format is {made}")
        (split,) = (split for split in info["splits"] if split["name"] == SPLIT)
        counts = [int(count) for count in split["shardLengths"]]
        self._length = sum(counts)
        shards = [
            _Shard(
                str(folder / f"{DATASET}-{SPLIT}.array_record-{i:05d}-of-{len(counts):05d}"), 0, count, count
            )
            for i, count in enumerate(counts)
            if count
        ]
        self._files = array_record_data_source.ArrayRecordDataSource(shards)
        self._mask_bytes = _mask_bytes(mask_grid)
        self._features = record_features(mask_grid=mask_grid, num_keypoints=num_keypoints)
        # TensorFlow would decode images differently from images.read_image.
        self._decoders = {name: tfds.decode.SkipDecoding() for name in ("image", "masks")}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._features.deserialize_example_np(self._files[index], decoders=self._decoders)
        _check_objects(record)
        return record | {"masks": self._masks(record["masks"], count=len(record["boxes"]))}

    def _masks(self, compressed: bytes, *, count: int) -> np.ndarray:
        """The masks ``[count bytes]``. Never decompresses more than that, whatever the data hold."""
        size = count * self._mask_bytes
        data = zlib.decompressobj().decompress(compressed, size + 1)
        if len(data) != size:
            raise ValueError(f"the masks of {count} objects must have {size} bytes")
        return np.frombuffer(data, np.uint8).reshape(count, self._mask_bytes)
