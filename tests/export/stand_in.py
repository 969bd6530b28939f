"""Writes files of a model that detects the same in every image, which takes no time to make or to run."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.export import model_file
from mrcnn_jax.export.model_file import Exportable, export_model
from mrcnn_jax.export.programs import image_dtype
from mrcnn_jax.inference.views import Scale, scales_of
from mrcnn_jax.runs.categories import Categories

CATEGORIES = Categories(
    ids=(3, 7, 8, 9),
    names=("ball", "figure", "cone", "cube"),
    keypoint_labels=(4,),
    keypoint_names=tuple("abcdefghi"),
    sigmas=(0.05,) * 9,
)
_DETECTIONS = 6


def _detect(arrays: Any, images: jax.Array, image_sizes: jax.Array) -> dict[str, jax.Array]:
    """Detections with boxes at the edges of the image and one beyond it; the third is not valid."""
    batch = len(images)
    corners = jnp.sort(arrays["corners"].reshape(1, _DETECTIONS, 2, 2), axis=2)
    boxes = (corners * image_sizes[:, None, None, ::-1]).reshape(batch, _DETECTIONS, 4)
    boxes = boxes.at[:, 1].set(arrays["corners"][1] + 100_000)
    darkness = 1 - images[:, :28, :28, :1].astype(jnp.float32).reshape(batch, 1, 28, 28) / 255
    return {
        "boxes": boxes,
        "scores": jnp.tile(jnp.linspace(0.9, 0.1, _DETECTIONS), (batch, 1)),
        "labels": jnp.tile(jnp.arange(_DETECTIONS) % 4 + 1, (batch, 1)),
        "valid": jnp.tile(jnp.arange(_DETECTIONS) != 2, (batch, 1)),
        "masks": jnp.tile(darkness, (1, _DETECTIONS, 1, 1)),
        "keypoints": boxes[:, :, None, :3] + jnp.arange(9.0)[:, None],
    }


def _lower(folded: Any, config: Config, *, platform: str, canvas: tuple[int, int], batch_size: int) -> bytes:
    images = jax.ShapeDtypeStruct((batch_size, *canvas, len(config.model.pixel_mean)), image_dtype(config))
    sizes = jax.ShapeDtypeStruct((batch_size, 2), np.int32)
    arrays = {"corners": jax.ShapeDtypeStruct((_DETECTIONS, 4), np.float32)}
    return bytes(jax.export.export(jax.jit(_detect), platforms=[platform])(arrays, images, sizes).serialize())


def write_stand_in(
    path: Path,
    config: Config,
    *,
    categories: Categories = CATEGORIES,
    scale: Scale | None = None,
    **options: Any,
) -> Path:
    """Writes the file by ``export_model``, with the program of this module for the config's images."""
    corners = np.random.default_rng(0).random((_DETECTIONS, 4), np.float32)
    corners[0] = 0, 0, 1, 1
    model: Any = None
    exportable = Exportable(config, categories, 7, model, {"corners": corners}, scale or scales_of(config)[0])
    with mock.patch.object(model_file, "lower_program", _lower):
        export_model(exportable, path, **{"platforms": ["cpu"], **options})
    return path


def with_data(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def with_test(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, test=dataclasses.replace(config.test, **changes))
