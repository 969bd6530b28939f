"""Opens the training and validation data that a config names."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn_jax.config import Config, DataConfig
from mrcnn_jax.data.check_images import check_images
from mrcnn_jax.data.coco import CocoDataset, leave_out, read_coco
from mrcnn_jax.data.findings import Finding, errors, raise_errors
from mrcnn_jax.data.joined import JoinedSource
from mrcnn_jax.data.source import DataSource, FolderSource
from mrcnn_jax.pixels import PixelFormat

if TYPE_CHECKING:
    from mrcnn_jax.data.records import RecordSource


def open_data_source(config: Config) -> "FolderSource | RecordSource | JoinedSource":
    """The training data of ``config.data``: records, or a COCO folder, all of whose files are checked.

    Several data sets are joined. Raises ValueError, naming file and rule, for missing or malformed data, or
    for data sets of different categories. For invalid entries and images of a folder the message has a table
    of all findings, unless ``config.data.skip_bad`` drops them.
    """
    data = config.data
    first = _open_training_set(
        config, data.train_images, data.train_annotations, data.train_keypoints, data.train_records
    )
    if not data.more_train_annotations:
        return first
    more_records = data.more_train_records or ("",) * len(data.more_train_annotations)
    further = [
        _open_training_set(config, images, annotations, "", records)
        for images, annotations, records in zip(
            data.more_train_images, data.more_train_annotations, more_records, strict=True
        )
    ]
    return JoinedSource([first, *further])


def _open_training_set(
    config: Config, images: str, annotations: str, keypoints: str, records: str
) -> "FolderSource | RecordSource":
    data, pixels = config.data, PixelFormat.of(config)
    if records:
        source = _open_records(Path(data.root) / records, mask_grid=data.mask_grid, pixels=pixels)
        _check_crowds(source, data)
        return source
    dataset = read_coco(
        data.root,
        images=images,
        annotations=annotations,
        keypoints=keypoints,
        keypoint_rule="strict" if config.model.keypoint else "lenient" if data.min_keypoints else "skip",
        crowds_are_objects=data.crowds_are_objects,
        skip_bad=True,
    )
    findings = check_images(dataset, pixels)
    dataset = _with_warnings(leave_out(dataset, errors(findings)), findings)
    if not data.skip_bad:
        raise_errors(
            dataset.name, dataset.findings, remedy="--config.data.skip_bad trains without those listed"
        )
    return FolderSource(dataset, mask_grid=data.mask_grid if config.model.mask else 0, pixels=pixels)


def open_validation_source(config: Config, *, count: int | None = None, mask_grid: int = 0) -> DataSource:
    """The validation data of ``config.data``, of which the first ``count`` images are used (None: all).

    Objects have box-frame masks of ``mask_grid`` cells per axis, which evaluation does not need; 0: none.
    Raises ValueError as ``open_data_source`` does, but regardless of ``skip_bad``: a score on part of the
    images would not be comparable.
    """
    data, pixels = config.data, PixelFormat.of(config)
    if data.val_records:
        folder = Path(data.root) / data.val_records
        records = _open_records(folder, mask_grid=mask_grid or None, count=count, pixels=pixels)
        _check_crowds(records, data)
        if not len(records.ids):
            raise ValueError(f"{records.name}: has no images to evaluate on (data.val_records)")
        return records
    dataset = read_coco(
        data.root,
        images=data.val_images,
        annotations=data.val_annotations,
        keypoints=data.val_keypoints,
        keypoint_rule="strict" if config.model.keypoint else "skip",
        crowds_are_objects=data.crowds_are_objects,
    )
    if not dataset.images:
        raise ValueError(f"{dataset.name}: has no images to evaluate on (data.val_annotations)")
    dataset = dataclasses.replace(dataset, images=dataset.images[:count])
    findings = check_images(dataset, pixels)
    raise_errors(
        dataset.name, findings, remedy="an evaluation needs all images, so data.skip_bad does not apply"
    )
    return FolderSource(_with_warnings(dataset, findings), mask_grid=mask_grid, pixels=pixels)


def _with_warnings(dataset: CocoDataset, findings: Sequence[Finding]) -> CocoDataset:
    warnings = (finding for finding in findings if finding.warning)
    return dataclasses.replace(dataset, findings=(*dataset.findings, *warnings))


def _open_records(folder: Path, **settings: Any) -> "RecordSource":
    # Imported here, as it imports TensorFlow, which evaluating on a folder does not need.
    from mrcnn_jax.data.records import RecordSource

    return RecordSource(folder, **settings)


def _check_crowds(records: "RecordSource", data: DataConfig) -> None:
    """Raises ValueError if crowds are to be objects but the records have them as crowds, without masks."""
    if data.crowds_are_objects and (records.counts is None or records.counts[:, 1].any()):
        raise ValueError(
            f"{records.name}: data.crowds_are_objects is set, but these records were made without; remake "
            "them with mrcnn-jax prepare --crowds_are_objects"
        )
