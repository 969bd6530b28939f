"""A narrow model's programs as compiled for TPUs and GPUs that need not be here (make test-compilers).

Their canvas, anchors, proposals and regions are those of COCO's config, as what these cost does not depend on
the model's width. Each test is about something that was wrong once.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from mrcnn_jax.compile_report.programs import Objects, lower_predict, lower_step
from mrcnn_jax.config import Config, ModelConfig, TrainConfig
from mrcnn_jax.config import TestConfig as InferenceConfig
from mrcnn_jax.distributed.sharding import batch_sharding, replicated
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.ops.roi_align import roi_align

# Compilers warn about what they cannot find, and JAX about them.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CANVAS = 800, 1344
CONFIG = Config(
    model=ModelConfig(
        backbone_depth=18,
        backbone_width=16,
        fpn_channels=32,
        box_channels=64,
        mask_convs=1,
        mask_channels=32,
        dtype="bfloat16",
    ),
    train=TrainConfig(batch_size=4),
    test=InferenceConfig(batch_size=2),
)


@pytest.fixture(scope="module", params=["v5e:1x2", "h100:2"])
def step(request, compiled):
    """The training step of two images on each of two devices."""
    return compiled(request.param, lambda mesh: lower_step(CONFIG, mesh, CANVAS, objects=Objects()))


def test_the_step_fits_and_devices_exchange_only_sums_in_float32(step):
    report, _ = step
    assert report.problems(("all-reduce",)) == []
    assert {c.types for c in report.collectives} <= {"f32", "f32, s32", "s32"}


def test_no_sum_over_devices_is_inside_a_loop(step):
    _, program = step
    sums = [run for run in program.runs() if run.operation.opcode.startswith("all-reduce")]
    assert sums and all(run.known and run.times == 1 for run in sums)


def test_pairs_of_boxes_are_of_one_level(step):
    """Suppression once compared the 8819 boxes of all levels with each other."""
    _, program = step
    largest = max(math.prod(a.shape) for run in program.runs() for a in run.operation.arrays)
    assert largest < 8819 * 8819


def test_no_large_array_is_mostly_padding(step):
    """The anchors' boxes and deltas, with four columns in tiles of 128, once took gigabytes."""
    report, _ = step
    large = [row for row in report.padding if row.amount > 128e6]
    assert {row.stage for row in large} <= {"backbone"}  # whose first layer has three channels


def test_roi_pooling_is_not_multiplied_with_whole_maps_on_a_gpu(step):
    report, _ = step
    if "__cublas$lt$matmul" in report.kernels:
        assert "roi_pooling" not in report.matmuls


@pytest.mark.parametrize("chip", ["v5e", "h100"])
def test_inference_fits_and_needs_no_exchange(compiled, chip):
    report, _ = compiled(chip, lambda mesh: lower_predict(CONFIG, mesh, CANVAS, objects=Objects()))
    assert report.problems(()) == []


def test_masks_of_maps_are_made_at_their_own_size(compiled):
    """A TPU's compiler ran out of its cores' memory over every 64th row and column of a canvas's mask."""

    def lower(mesh):
        blueprint = make_blueprint(CONFIG.model, num_classes=80)

        def features(arrays, images, sizes):
            return blueprint.build(arrays).features(images, sizes).maps

        one, sharding = replicated(mesh), batch_sharding(mesh)
        rows = sharding.images, sharding.image_sizes
        images = jax.ShapeDtypeStruct((2, *CANVAS, 3), jnp.uint8)
        sizes = jax.ShapeDtypeStruct((2, 2), jnp.int32)
        with jax.set_mesh(mesh):
            return jax.jit(features, in_shardings=(one, *rows)).lower(blueprint.shapes(), images, sizes)

    report, _ = compiled("v5e", lower)
    assert report.problems(()) == []


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_roi_pooling_of_c5_fits_into_a_core(compiled, dtype):
    """All 2048 channels of a window's cells, at once, were more than a kernel may hold."""

    def pool_and_gradient(features, boxes):
        def pool(features):
            settings = {"stride": 32.0, "output_size": 14, "sampling_ratio": 0, "aligned": True}
            return jax.vmap(lambda f, b: roi_align(f, b, **settings))(features, boxes)

        pooled, transpose = jax.vjp(pool, features)
        return pooled, transpose(pooled)

    def lower(mesh):
        features = jax.ShapeDtypeStruct((1, 25, 42, 2048), dtype)
        boxes = jax.ShapeDtypeStruct((1, 64, 4), jnp.float32)
        with jax.set_mesh(mesh):
            one = replicated(mesh)
            return jax.jit(pool_and_gradient, in_shardings=(one, one)).lower(features, boxes)

    report, _ = compiled("v5e", lower)
    assert report.kernels["tpu_custom_call"] == 4 and report.problems(()) == []
