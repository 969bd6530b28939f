"""Opens the training data that a config names."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.check_images import check_images
from mrcnn_jax.data.coco import leave_out, read_coco
from mrcnn_jax.data.findings import raise_errors
from mrcnn_jax.data.records import RecordSource
from mrcnn_jax.data.source import DataSource, FolderSource


def open_data_source(config: Config) -> DataSource:
    """The training data of ``config.data``: records, or a COCO folder, all of whose files are checked.

    Raises ValueError, naming file and rule, for missing or malformed data. For invalid entries and images of
    a folder the message has a table of all findings, unless ``config.data.skip_bad`` drops them.
    """
    data = config.data
    if data.train_records:
        return RecordSource(Path(data.root) / data.train_records, mask_grid=data.mask_grid)
    dataset = read_coco(
        data.root,
        images=data.train_images,
        annotations=data.train_annotations,
        keypoints=data.train_keypoints,
        skip_bad=True,
    )
    dataset = leave_out(dataset, check_images(dataset))
    if not data.skip_bad:
        raise_errors(
            dataset.name, dataset.findings, remedy="--config.data.skip_bad trains without those listed"
        )
    return FolderSource(dataset, mask_grid=data.mask_grid if config.model.mask else 0)
