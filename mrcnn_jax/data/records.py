"""COCO datasets as random-access records: a TFDS dataset with one record per image.

A record holds the unchanged image file, and its objects as in ``Objects``. ``index.npz`` and
``categories.json`` next to the records hold the metadata of all images, so opening them reads no record;
``annotations.jsonl`` is only for evaluation.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import re
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn_jax import images
from mrcnn_jax.config.limits import LIMITS
from mrcnn_jax.data.annotations import read_annotations, write_annotations
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage, leave_out
from mrcnn_jax.data.federated import Federated, read_federated, write_federated
from mrcnn_jax.data.findings import Finding, as_table, errors, printable, raise_errors, summary
from mrcnn_jax.data.objects import Objects
from mrcnn_jax.data.record import make_record
from mrcnn_jax.data.record_files import SPLIT, RecordFiles, record_features
from mrcnn_jax.data.source import AnnotatedImage, FolderSource, check_size
from mrcnn_jax.data.tensorflow import tfds
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.runs.categories import CATEGORIES_FILE, check_consistent, load_categories, save_categories

ANNOTATIONS_FILE = "annotations.jsonl"
FEDERATED_FILE = "federated.json"  # of LVIS's records
# TFDS holds one shard in memory while writing it. COCO's train2017 becomes 150 shards of this size.
_SHARD_BYTES = 128_000_000
_INDEX = ("ids", "sizes", "learnable", "num_objects", "has_masks", "mask_grid")
# Of each array with a row per image, the shape of a row and the kind of its numbers.
_COLUMNS = {
    "ids": ((), "i"),
    "sizes": ((2,), "i"),
    "learnable": ((), "b"),
    "num_objects": ((), "i"),
    "visible_keypoints": ((), "i"),
}
_COUNTS = ("counts", "visible_keypoints", "image_labels")  # which records of earlier versions do not have


@dataclasses.dataclass(eq=False, kw_only=True)
class CocoObjectsConfig(tfds.core.BuilderConfig):
    """The dataset and settings to make records from; ``name`` is the name of the records."""

    dataset: CocoDataset = dataclasses.field(repr=False)
    mask_grid: int
    num_workers: int
    skip_bad: bool
    pixels: PixelFormat


class CocoObjects(tfds.core.ShardBasedBuilder):
    """Images with boxes, box-frame masks, keypoints with visibility, crowds, areas, and original ids.

    Written in dataset order, shard by shard: TFDS's usual builder would sort all records in memory.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = ()

    def _info(self) -> tfds.core.DatasetInfo:
        config: CocoObjectsConfig = self.builder_config
        points = len(config.dataset.categories.keypoint_names)
        features = record_features(mask_grid=config.mask_grid, num_keypoints=points)
        # Not shuffled: record i is image i of the index.
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator]]]:
        self.bad_images: list[Finding] = []
        self.nearly_black: list[str] = []
        config: CocoObjectsConfig = self.builder_config
        sizes = [_size(image, config.mask_grid) for image in config.dataset.images]
        _, counts = np.unique(np.cumsum(sizes) // _SHARD_BYTES, return_counts=True)
        # The last shard takes all that is left: only an exhausted iterator runs the checks in _records.
        shares = [*counts[:-1].tolist(), None]
        records = self._records()
        return {SPLIT: [partial(self._examples, records, share) for share in shares]}

    def _examples(
        self, records: Iterator[dict[str, Any] | None], count: int | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The next ``count`` records, or all that are left (None), skipping bad images."""
        for number, record in enumerate(islice(records, count)):
            if record is not None:
                yield number, record

    def _records(self) -> Iterator[dict[str, Any] | None]:
        """The record of each image, or None if it is bad."""
        config: CocoObjectsConfig = self.builder_config
        dataset, points = config.dataset, len(config.dataset.categories.keypoint_names)
        tasks = ((image, config.mask_grid, points, config.pixels) for image in dataset.images)
        records = _parallel_map(make_record, tasks, workers=config.num_workers)
        for record, finding in tqdm(
            records, unit="image", total=len(dataset.images), leave=False, disable=None
        ):
            if record is None:
                self.bad_images.append(finding)
            elif finding is not None:
                self.nearly_black.append(printable(finding.file))
            yield record
        findings = (*dataset.findings, *self.bad_images)
        # Raised here, not after writing, so that TFDS leaves no records behind.
        if not config.skip_bad:
            raise_errors(dataset.name, findings, remedy="--skip_bad makes records without those listed")
        if len(self.bad_images) == len(dataset.images):
            why = f"; {summary(findings)}" if findings else ""
            raise ValueError(f"{dataset.name}: there is no image to make a record from{why}")


def records_name(annotations: str, name: str = "") -> str:
    """The TFDS name of the records: ``name``, or else the annotation file's name without suffix.

    In the file's name, characters that TFDS does not accept become "_". Raises ValueError for a ``name`` that
    TFDS does not accept.
    """
    name = name or re.sub(r"[^\w+.-]+", "_", Path(annotations).stem)
    if not re.fullmatch(r"[\w+.-]+", name) or not name.strip("."):  # it also names a folder
        rule = "letters, digits, '_', '+', '-' and '.', and not of dots alone"
        raise ValueError(f"--name of the records must consist of {rule}, got {name!r}")
    return name


def prepare_records(
    dataset: CocoDataset,
    output: Path,
    *,
    name: str = "",
    mask_grid: int,
    num_workers: int,
    file_format: str = "array_record",
    skip_bad: bool = False,
    pixels: PixelFormat = RGB,
) -> tuple[Path, CocoDataset]:
    """Writes the records of a dataset below ``output``; returns their folder and the dataset they hold.

    If entries were dropped because of errors, ``left_out.txt`` in that folder lists them. Nearly black images
    are a warning in the dataset's findings.

    Args:
        dataset: As read by ``read_coco`` with ``skip_bad``.
        output: Folder that may also hold the records of other datasets.
        name: Name of the records, as for ``records_name``.
        mask_grid: S, the cells of a box-frame mask per axis.
        num_workers: Number of processes that read images and rasterise masks.
        file_format: ``array_record`` for random access, or ``tfrecord``, which only ``tfds.load`` reads.
        skip_bad: Whether to drop images that cannot be read or whose size differs from the annotations, and
            to accept a dataset with findings.
        pixels: What the images must be; the files are kept as they are.

    Raises:
        ValueError: if TFDS does not accept ``name``, these records already exist, or ``check_consistent``
            rejects the categories; and, after checking all images, with a table of all findings, if no image
            is left or, unless ``skip_bad``, if any image or entry is invalid.
    """
    check_consistent(dataset.categories)
    config = CocoObjectsConfig(
        name=records_name(dataset.name, name),
        dataset=dataset,
        mask_grid=mask_grid,
        num_workers=num_workers,
        skip_bad=skip_bad,
        pixels=pixels,
    )
    builder = CocoObjects(data_dir=str(output), config=config)
    folder = Path(builder.data_dir)
    if folder.exists():
        raise ValueError(
            f"{folder}: already exists; delete it to remake the records, or choose another --name"
        )
    # Nothing is downloaded, although TFDS prints that it is.
    with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=unused, file_format=file_format)
    dataset = leave_out(dataset, builder.bad_images)
    if builder.nearly_black:  # one warning for all
        warning = Finding(
            dataset.name, None, None, images.describe_nearly_black(builder.nearly_black), warning=True
        )
        dataset = dataclasses.replace(dataset, findings=(*dataset.findings, warning))
    source = FolderSource(dataset, mask_grid=mask_grid)
    index = {name: getattr(source, name) for name in (*_INDEX, *_COUNTS) if name != "mask_grid"}
    save_categories(folder / CATEGORIES_FILE, dataset.categories)
    write_annotations(folder / ANNOTATIONS_FILE, dataset.images)
    if source.federated is not None:
        write_federated(folder / FEDERATED_FILE, source.federated)
    if left_out := errors(dataset.findings):
        (folder / "left_out.txt").write_text(f"{as_table(left_out)}\n", encoding="utf-8")
    # Written last: marks the records as complete.
    np.savez(folder / "index.npz", mask_grid=mask_grid, **index)
    return folder, dataset


class RecordSource:
    """The ``DataSource`` of a folder that ``prepare_records`` returned; its ``findings`` are empty.

    Args:
        folder: The records.
        mask_grid: The cells per axis that their masks must have; None: any number.
        count: How many of the images there are in this source, from the first on; None: all.
        pixels: What the images are.

    Raises:
        ValueError: naming the folder, if it does not hold such records, or holds records of another file
            format or with other masks; from ``annotations``, as ``read_annotations`` does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mask_grid: int | None = None,
        count: int | None = None,
        pixels: PixelFormat = RGB,
    ) -> None:
        self.name, self._pixels = str(folder), pixels
        self.findings: tuple[Finding, ...] = ()
        try:
            index = _read_index(folder / "index.npz")
            self.categories = load_categories(folder / CATEGORIES_FILE)
            self._records = RecordFiles(
                folder,
                mask_grid=int(index["mask_grid"]),
                num_keypoints=len(self.categories.keypoint_names),
            )
            if len(self._records) != len(index["ids"]):
                raise ValueError(f"{len(self._records)} records, but {len(index['ids'])} in index.npz")
            if "counts" in index and index["counts"].shape != (len(self.categories), 2):
                raise ValueError(f"index.npz does not count the objects of {CATEGORIES_FILE}")
            pairs = index.get("image_labels")
            if pairs is not None and not _are_pairs(pairs, len(index["ids"]), len(self.categories)):
                raise ValueError("index.npz has image_labels that are not of its images and categories")
            self.federated: Federated | None = None
            if (folder / FEDERATED_FILE).exists():
                self.federated = read_federated(
                    folder / FEDERATED_FILE,
                    num_images=len(index["ids"]),
                    num_categories=len(self.categories),
                ).first(count)
        # Damaged files make NumPy and TFDS raise nearly anything: BadZipFile, EOFError, ParseError ...
        except Exception as error:
            raise ValueError(
                f"{folder}: not random-access records as written by mrcnn-jax prepare: {error}"
            ) from error
        self._sizes = index["sizes"]
        self.ids, self.sizes = index["ids"][:count], index["sizes"][:count]
        self.learnable, self.num_objects = index["learnable"][:count], index["num_objects"][:count]
        self.has_masks = bool(index["has_masks"])
        visible = index.get("visible_keypoints")
        self.visible_keypoints = None if visible is None else visible[:count]
        self.counts = index.get("counts")  # of all images, whatever ``count``
        self.image_labels = None if pairs is None else pairs[pairs[:, 0] < len(self.ids)]
        if mask_grid is not None and (cells := int(index["mask_grid"])) != mask_grid:
            raise ValueError(
                f"{folder}: its masks have {cells} cells per axis; set data.mask_grid, now {mask_grid}, to "
                f"{cells}, or remake the records"
            )

    def read(self, index: int) -> AnnotatedImage:
        record = self._record(index)
        file_name = printable(record["name"].decode(errors="surrogateescape"))
        name = f"{self.name}: image {record['id']} ({file_name})"
        pixels = images.decode_image(record["image"], self._pixels, name=name)
        check_size(pixels, tuple(self._sizes[index].tolist()), name)
        return AnnotatedImage(name=name, pixels=pixels, objects=self._objects(record))

    def file(self, index: int) -> bytes:
        return self._record(index)["image"]

    def objects(self, index: int) -> Objects:
        return self._objects(self._record(index))

    def _record(self, index: int) -> dict[str, Any]:
        try:
            return self._records[index]
        # Damaged files make ArrayRecord and TFDS raise nearly anything.
        except Exception as error:
            raise ValueError(f"{self.name}: image {self.ids[index]}: damaged record: {error}") from error

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        return self._annotations[index]

    @cached_property
    def _annotations(self) -> list[tuple[CocoAnnotation, ...]]:
        path = Path(self.name) / ANNOTATIONS_FILE
        return read_annotations(path, sizes=self._sizes, categories=self.categories)

    def _objects(self, record: dict[str, Any]) -> Objects:
        labels = record["labels"]
        count = len(self.categories)
        if not ((labels >= 1) & (labels <= count)).all():
            raise ValueError(
                f"{self.name}: image {record['id']}: labels must be from 1 to {count}, the number of its "
                f"categories, got {labels.tolist()}"
            )
        points = len(self.categories.keypoint_names)
        keypoints = record["keypoints"] if points else np.zeros(0, np.float32)
        return Objects(
            boxes=record["boxes"],
            labels=labels,
            crowd=record["crowd"],
            ids=record["ids"],
            areas=record["areas"],
            masks=record["masks"],
            keypoints=keypoints.reshape(len(record["boxes"]), points, 3),
        )


def _read_index(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``index.npz``; most of them have a row per image."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError(f"{path.name} is compressed")  # it may be of any size when it is not
    with np.load(path) as arrays:
        index = {name: arrays[name] for name in _INDEX}
        index |= {name: arrays[name] for name in _COUNTS if name in arrays}
    count = len(index["ids"])
    for name, (shape, kind) in _COLUMNS.items():
        if (array := index.get(name)) is None:
            continue
        if len(array) != count:
            raise ValueError(f"{path.name} has {len(array)} {name} for {count} ids")
        if array.shape[1:] != shape or array.dtype.kind != kind:
            raise ValueError(f"{path.name} has {name} of type {array.dtype} and shape {array.shape}")
    if len(np.unique(index["ids"])) < count:
        raise ValueError(f"{path.name} has ids that repeat")
    if not 1 <= (cells := index["mask_grid"].item()) <= LIMITS["data.mask_grid"]:
        raise ValueError(
            f"{path.name} has a mask_grid of {cells}; it must be from 1 to {LIMITS['data.mask_grid']}"
        )
    return index


def _are_pairs(pairs: np.ndarray, num_images: int, num_categories: int) -> bool:
    """Whether these are ``image_labels`` of so many images and categories."""
    if pairs.dtype.kind != "i" or pairs.ndim != 2 or pairs.shape[1] != 2:
        return False
    return bool(((pairs >= (0, 1)) & (pairs <= (num_images - 1, num_categories))).all())


def _size(image: CocoImage, mask_grid: int) -> int:
    """The approximate size of an image's record in bytes, before mask compression."""
    try:
        file = image.path.stat().st_size
    except OSError:  # reported as a finding when the image is read
        file = 0
    return file + len(image.annotations) * mask_grid**2 // 8


def _parallel_map(function: Callable[[Any], Any], items: Iterable[Any], *, workers: int) -> Iterator[Any]:
    """``map`` in worker processes: in order, a few results ahead, stopping at the first exception."""
    # Spawned, because a fork would not copy TensorFlow's threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        ahead: deque = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 8 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
