"""The programs that reports are about, lowered for arguments of which only the shapes are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mrcnn_jax.compile_report.chips import Gpu, Topology
from mrcnn_jax.config import Config, TestConfig, TrainConfig
from mrcnn_jax.inference.augmented import jit_describe, jit_detect
from mrcnn_jax.inference.detector import jit_predict
from mrcnn_jax.inference.proposer import jit_propose
from mrcnn_jax.models.variables import Blueprint, make_blueprint
from mrcnn_jax.training.step import compile_step, make_state
from mrcnn_jax.types import Batch, Detections, GroundTruth, Proposals

Canvas = tuple[int, int]  # height, width


class Objects(NamedTuple):
    """What the shapes of a program depend on of the data: numbers of categories, and of keypoints, if any."""

    categories: int = 80  # of COCO
    keypoints: int = 17


def lower_step(config: Config, mesh: Mesh, canvas: Canvas, *, objects: Objects) -> jax.stages.Lowered:
    """The training step of ``config.train.batch_size`` images, lowered for the devices of ``mesh``.

    Raises ValueError if the batch cannot be divided among the devices.
    """
    blueprint = _blueprint(config, objects)
    state = jax.eval_shape(lambda: make_state(blueprint, blueprint.initialize(jax.random.key(0)), config))
    return compile_step(blueprint, config, mesh).lower(state, _batch(config, canvas, objects))


def lower_predict(config: Config, mesh: Mesh, canvas: Canvas, *, objects: Objects) -> jax.stages.Lowered:
    """Inference on ``config.test.batch_size`` images, lowered for the devices of ``mesh``.

    Raises ValueError if the images cannot be divided among the devices.
    """
    devices, batch = mesh.shape["data"], config.test.batch_size
    if batch % devices:
        raise ValueError(f"test.batch_size ({batch}) must be divisible by the number of devices ({devices})")
    blueprint = _blueprint(config, objects)
    images, sizes = _images(config, canvas)
    given = _proposals(config.test, config, config.test.batch_size)
    jit = jit_predict if config.model.box else jit_propose
    with jax.set_mesh(mesh):
        return jit(blueprint, config, mesh).lower(blueprint.folded().shapes(), images, sizes, *given)


def lower_view(
    config: Config, mesh: Mesh, canvas: Canvas, *, objects: Objects, given_boxes: bool
) -> jax.stages.Lowered:
    """Inference on a view, with test-time augmentation: its boxes, or what it shows of the given ones."""
    blueprint = _blueprint(config, objects)
    images, sizes = _images(config, canvas)
    arrays = blueprint.folded().shapes()
    with jax.set_mesh(mesh):
        if not given_boxes:
            return jit_detect(blueprint, config, mesh).lower(arrays, images, sizes)
        rows = config.test.batch_size, config.test.detections
        merged = jax.eval_shape(
            lambda: Detections(
                boxes=jnp.zeros((*rows, 4)),
                scores=jnp.zeros(rows),
                labels=jnp.zeros(rows, jnp.int32),
                valid=jnp.zeros(rows, jnp.bool_),
            )
        )
        flipped = jax.ShapeDtypeStruct((), jnp.bool_)
        order = jax.ShapeDtypeStruct((blueprint.num_keypoints,), jnp.int32)
        return jit_describe(blueprint, config, mesh).lower(
            arrays, images, sizes, flipped, sizes, merged, order
        )


def _images(config: Config, canvas: Canvas) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes of a batch's images and their sizes, in inference."""
    count = config.test.batch_size
    is_float = config.data.resize == "torchvision" or config.model.pixel_type == "float32"
    shape = count, *canvas, len(config.model.pixel_mean)
    sizes = jax.ShapeDtypeStruct((count, 2), jnp.int32)
    return jax.ShapeDtypeStruct(shape, jnp.float32 if is_float else jnp.uint8), sizes


def _blueprint(config: Config, objects: Objects) -> Blueprint:
    keypoints = objects.keypoints if config.model.keypoint else 0
    return make_blueprint(config.model, num_classes=objects.categories, num_keypoints=keypoints)


def _proposals(section: TrainConfig | TestConfig, config: Config, images: int) -> tuple[Proposals, ...]:
    """The shapes of a batch's proposals, for a model without an RPN; else nothing."""
    rows = images, section.rpn_post_nms

    def make() -> Proposals:
        return Proposals(jnp.zeros((*rows, 4)), jnp.zeros(rows), jnp.zeros(rows, jnp.bool_))

    return () if config.model.rpn else (jax.eval_shape(make),)


def _batch(config: Config, canvas: Canvas, data: Objects) -> Batch:
    """The shapes of a training batch as the data pipeline makes it."""
    count, objects, grid = config.train.batch_size, config.data.max_objects, config.data.mask_grid
    masks, keypoints = config.model.mask, config.model.keypoint
    # Pillow resizes 8 bits to whole values, and does so for jitter whatever the rule.
    is_float = config.data.resize == "torchvision" and not config.data.scale_jitter
    pixels = jnp.float32 if is_float or config.model.pixel_type == "float32" else jnp.uint8
    channels = len(config.model.pixel_mean)

    def make() -> Batch:
        rows = count, objects
        return Batch(
            images=jnp.zeros((count, *canvas, channels), pixels),
            image_sizes=jnp.zeros((count, 2), jnp.int32),
            ids=None,
            gt=GroundTruth(
                boxes=jnp.zeros((*rows, 4)),
                labels=jnp.zeros(rows, jnp.int32),
                crowd=jnp.zeros(rows, jnp.bool_),
                valid=jnp.zeros(rows, jnp.bool_),
                masks=jnp.zeros((*rows, grid, grid), jnp.uint8) if masks else None,
                mask_boxes=jnp.zeros((*rows, 4)) if masks else None,
                keypoints=jnp.zeros((*rows, data.keypoints, 3)) if keypoints else None,
            ),
        )

    batch = jax.eval_shape(make)
    given = _proposals(config.train, config, count)
    return batch.replace(proposals=given[0]) if given else batch


def compile_for(lowered: jax.stages.Lowered, topology: Topology) -> jax.stages.Compiled:
    """The compiled program, for a topology whose devices cannot be asked which kernels are the fastest."""
    untried: dict[str, str | bool] = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False}
    return lowered.compile(compiler_options=untried if isinstance(topology.chip, Gpu) else None)
