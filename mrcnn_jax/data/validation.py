"""Batches of the validation images as training sees them, but each once and without augmentation."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.pipeline import field_types, iterate_batches, load_example, training_canvas
from mrcnn_jax.data.selection import trained_images
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.proposals import DataProposals
from mrcnn_jax.types import Batch

_EVERYWHERE = (-1e6, -1e6, 1e6, 1e6)  # a box around any anchor


def measured_images(source: DataSource, config: DataConfig, *, keypoints: bool) -> np.ndarray:
    """The indices of the images that would be trained on: ``[M]``; raises ValueError if there are none."""
    kept = np.flatnonzero(trained_images(source, config, keypoints=keypoints))
    if not len(kept):
        raise ValueError(
            f"{source.name}: none of its {len(source.ids)} images would be trained on, so it has no losses "
            "to measure; set train.validation_loss to False"
        )
    return kept


def validation_batches(
    source: DataSource,
    config: DataConfig,
    indices: np.ndarray,
    *,
    batch_size: int,
    masks: bool,
    keypoints: bool,
    proposals: DataProposals | None = None,
    num_proposals: int = 0,
    pixels: PixelFormat = RGB,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """The images at ``indices [N]``, canvas by canvas, and with each batch the index of each of its rows.

    Every image is resized to ``config.test_short_side``. A batch that a canvas does not fill has rows of
    index -1: black images that are a crowd all over, so that nothing in them is sampled and no loss has a
    part of them.
    """
    data = dataclasses.replace(
        config, train_short_sides=(config.test_short_side,), flip=False, scale_jitter=(), colour_jitter=False
    )
    of_canvas = defaultdict(list)
    for index, size in zip(indices.tolist(), source.sizes[indices].tolist(), strict=True):
        of_canvas[training_canvas(tuple(size), data)].append(index)
    rows = [
        (canvas, index)
        for canvas, images in of_canvas.items()
        for index in images + [-1] * (-len(images) % batch_size)
    ]

    def load(position: int) -> dict[str, np.ndarray]:
        canvas, index = rows[position]
        example = load_example(
            source,
            of_canvas[canvas][0] if index < 0 else index,
            data,
            generator=np.random.default_rng(0),  # which decides nothing
            canvas=canvas,
            masks=masks,
            keypoints=keypoints,
            proposals=proposals,
            num_proposals=num_proposals,
            pixels=pixels,
        )
        return _blank(example) if index < 0 else example

    types = field_types(
        data, masks=masks, keypoints=keypoints, proposals=proposals is not None, pixels=pixels
    )
    batches = iterate_batches(load, types, end=len(rows), batch=batch_size)
    numbers = np.array([index for _, index in rows]).reshape(-1, batch_size)
    return zip(batches, numbers, strict=True)


def _blank(example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A row of the same shapes, in which nothing is sampled."""
    blank = {field: np.zeros_like(value) for field, value in example.items()}
    blank["boxes"][0], blank["crowd"][0], blank["valid"][0] = _EVERYWHERE, True, True
    return blank | {"image_sizes": example["image_sizes"]}
