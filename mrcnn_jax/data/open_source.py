"""The source of training images that a config names."""

from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.records import RecordSource
from mrcnn_jax.data.source import FolderSource, Source


def open_source(config: Config) -> Source:
    """Records, or a folder. Raises ValueError, naming file and rule, for missing or malformed data."""
    data = config.data
    if data.train_records:
        return RecordSource(Path(data.root) / data.train_records, mask_grid=data.mask_grid)
    dataset = read_coco(
        data.root,
        images=data.train_images,
        annotations=data.train_annotations,
        keypoints=data.train_keypoints,
    )
    return FolderSource(dataset, mask_grid=data.mask_grid if config.model.mask else 0)
