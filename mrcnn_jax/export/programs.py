"""Lowers inference to StableHLO, for platforms that this machine need not have."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractDevice, AbstractMesh

from mrcnn_jax.config import Config
from mrcnn_jax.export.runner.mrcnn_model import CUSTOM_CALL
from mrcnn_jax.images import Size
from mrcnn_jax.inference.predict import predict
from mrcnn_jax.models.variables import Blueprint

PLATFORMS = ("cpu", "cuda", "tpu")  # jax.export's names

# Takes folded arrays, images [B H W C], and their sizes without padding [B 2]; returns the detections.
Program = Callable[[Mapping[str, Array], Array, Array], dict[str, Array]]


def image_dtype(config: Config) -> jnp.dtype:
    """The dtype of resized images, of uint8 ones (see ``images.resize``)."""
    return jnp.dtype(jnp.float32 if config.data.resize == "torchvision" else jnp.uint8)


def make_program(folded: Blueprint, config: Config) -> Program:
    """``predict`` with a dict as its result, as ``jax.export`` and TensorFlow take no other classes."""

    def detect(arrays: Mapping[str, Array], images: Array, image_sizes: Array) -> dict[str, Array]:
        found = vars(predict(folded.build(arrays), images, image_sizes, config))
        return {name: values for name, values in found.items() if values is not None}

    return detect


def on_platform(platform: str) -> jax.sharding.use_abstract_mesh:
    """The context in which programs are traced for one device of a platform, in that platform's forms.

    The mesh has no axes, so there is nothing to split a batch over: ``distributed.sharding`` adds no
    ``shard_map``. One program for all platforms would hold all forms, and no TPU kernels.
    """
    return jax.sharding.use_abstract_mesh(
        AbstractMesh((), (), abstract_device=AbstractDevice(platform, None, platform))
    )


def lower_program(
    folded: Blueprint, config: Config, *, platform: str, canvas: Size, batch_size: int
) -> bytes:
    """The program of ``make_program`` for one platform, canvas and batch size, serialized by ``jax.export``.

    The batch size is fixed, because the fastest form of an operation depends on it. Raises ValueError if the
    program calls functions outside XLA, which the runner would refuse.
    """
    channels = len(config.model.pixel_mean)
    images = jax.ShapeDtypeStruct((batch_size, *canvas, channels), image_dtype(config))
    image_sizes = jax.ShapeDtypeStruct((batch_size, 2), jnp.int32)
    with on_platform(platform):
        exported = jax.export.export(jax.jit(make_program(folded, config)), platforms=(platform,))(
            folded.shapes(), images, image_sizes
        )
    if match := CUSTOM_CALL.search(text := exported.mlir_module()):
        call = text[match.start() :].partition("(")[0]
        raise ValueError(f"the model cannot be exported for {platform}: its program has a {call}")
    return bytes(exported.serialize())
