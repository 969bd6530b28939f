"""The pooling methods of ``model.roi_pooling``: each is its op, and the whole model runs with it."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.inference.detector import jit_predict
from mrcnn_jax.models.roi_pooling import pool_regions
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.ops.roi_align import plain
from mrcnn_jax.training.step import compile_step, make_state
from mrcnn_jax.types import Features

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
METHODS = ("align", "align_max", "pool", "warp", "warp_max")
ONE_MAP, PYRAMID = {"c4": 4}, {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


@functools.partial(jax.jit, static_argnames=("strides", "output_size", "changes"))
def pool_and_gradient(maps, sizes, boxes, cotangent, *, strides, output_size, changes):
    config = ModelConfig(features="fpn" if len(strides) > 1 else "c4", **dict(changes))

    def pool(maps):
        return pool_regions(maps, sizes, boxes, strides=dict(strides), output_size=output_size, config=config)

    pooled, transpose = jax.vjp(pool, maps)
    return pooled, transpose(cotangent)[0]


def pooled_by(method, maps, boxes, cotangent, *, sizes=None, **changes):
    """The features by ``method`` and the gradients of the maps, of which ``sizes`` belong to the image."""
    shapes = {level: values.shape[:2] for level, values in maps.items()}
    return pool_and_gradient(
        maps,
        {level: np.array(size, np.int32) for level, size in (sizes or shapes).items()},
        boxes,
        cotangent,
        strides=tuple((ONE_MAP if "c4" in maps else PYRAMID).items()),
        output_size=cotangent.shape[1],
        changes=tuple(sorted({"roi_pooling": method, **changes}.items())),
    )


pytestmark = pytest.mark.usefixtures("on_cpu")


def test_roi_pool_of_one_map_equals_torchvision():
    pooled, gradient = pooled_by(
        "pool", {"c4": REFERENCE["roi_pool/features"]}, REFERENCE["roi_pool/boxes"],
        REFERENCE["roi_pool/size7/cotangent"],
    )  # fmt: skip
    np.testing.assert_array_equal(pooled, REFERENCE["roi_pool/size7/pooled"])
    np.testing.assert_allclose(gradient["c4"], REFERENCE["roi_pool/size7/gradient"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("aligned", "ratio"), [(False, 2), (True, 0)])
def test_roi_align_of_one_map_equals_torchvision(aligned, ratio):
    case = f"roi_align/aligned{int(aligned)}_ratio{ratio}_size7"
    pooled, gradient = pooled_by(
        "align", {"c4": REFERENCE["roi_align/features"]}, REFERENCE["roi_align/boxes"],
        REFERENCE[f"{case}/cotangent"], roi_aligned=aligned, roi_sampling_ratio=ratio,
    )  # fmt: skip
    np.testing.assert_allclose(pooled, REFERENCE[f"{case}/pooled"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient["c4"], REFERENCE[f"{case}/gradient"], rtol=1e-5, atol=1e-5)


def test_methods_on_a_ramp_by_hand():
    """Channels are x and -x. One bin of a box from 1.6 to 3.4 cells, which rounds to the cells 2 and 3."""
    ramp = np.tile(np.arange(8, dtype=np.float32)[:, None] * [1, -1], (8, 1, 1)).astype(np.float32)
    box = np.array([[6.4, 6.4, 13.6, 13.6]], np.float32)
    expected = {
        "align": (2, -2),  # the middle, 2.5, with cell 0 at half a stride
        "align_max": (2.45, -1.55),  # points a quarter and three quarters of the way from 1.1 to 2.9
        "pool": (3, -2),
        "warp": (2.5, -2.5),  # from 1.5 to 3.5
        "warp_max": (3, -2),
    }
    for method, values in expected.items():
        pooled, _ = pooled_by(method, {"c4": ramp}, box, np.ones((1, 1, 1, 2), np.float32))
        np.testing.assert_allclose(pooled[0, 0, 0], values, rtol=1e-6, err_msg=method)


@pytest.fixture(scope="module")
def pyramid():
    """Maps of an image of 61 x 83 pixels, boxes on all levels and a cotangent."""
    rng = np.random.default_rng(0)
    maps = {
        level: rng.normal(size=(-(-61 // stride), -(-83 // stride), 3)).astype(np.float32)
        for level, stride in PYRAMID.items()
    }
    corner = rng.uniform(-4, 60, (16, 2))
    side = np.exp(rng.uniform(np.log(2), np.log(90), (16, 2)))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    boxes[:4] = [[5, 5, x, x] for x in (15, 25, 45, 60)]  # for each of the levels
    boxes[3, 2] = 80
    return maps, boxes, rng.normal(size=(16, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "ratio"),
    [
        ("align", 2),
        ("pool", 2),
        *(
            pytest.param(*way, marks=pytest.mark.slow)
            for way in [("align_max", 0), ("warp", 0), ("warp_max", 2)]
        ),
    ],
)
def test_padding_has_no_effect(method, ratio, pyramid):
    """Nor do levels above those to pool from, which the model's features have."""
    maps, boxes, cotangent = pyramid
    canvas = {
        level: np.full((96 // stride, 128 // stride, 3), 1e9, np.float32) for level, stride in PYRAMID.items()
    }
    for level, values in maps.items():
        canvas[level][: values.shape[0], : values.shape[1]] = values
    sizes = {level: values.shape[:2] for level, values in maps.items()}
    settings = {"roi_canonical_size": 28.0, "roi_sampling_ratio": ratio}
    pooled, gradient = pooled_by(method, maps, boxes, cotangent, **settings)
    canvas["p6"], sizes["p6"] = np.zeros((2, 2, 3), np.float32), (1, 2)
    found, slope = pooled_by(method, canvas, boxes, cotangent, sizes=sizes, **settings)
    np.testing.assert_array_equal(found, pooled)
    for level, values in gradient.items():
        inside = slice(values.shape[0]), slice(values.shape[1])
        np.testing.assert_array_equal(slope[level][inside], values)
        assert 0 < np.count_nonzero(values) == np.count_nonzero(slope[level])


@pytest.mark.parametrize("aligned", [True, False])
def test_maximum_of_roi_align_in_a_pyramid_equals_the_plain_form(aligned, pyramid):
    maps, boxes, cotangent = pyramid
    found, _ = pooled_by("align_max", maps, boxes, cotangent, roi_canonical_size=28.0, roi_aligned=aligned)
    options = {"output_size": 3, "sampling_ratio": 2, "reduction": "max", "canonical_size": 28.0}
    expected = jax.jit(functools.partial(plain.multilevel_roi_align, aligned=aligned, **options))(maps, boxes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("features", "ratio"), [pytest.param("fpn", 2, marks=pytest.mark.slow), ("c4", 0)])
def test_every_method_lowers_for_accelerators(features, ratio):
    """Without a mesh, so that the forms of all platforms are traced: nothing is left without one."""
    strides = PYRAMID if features == "fpn" else ONE_MAP
    maps = {
        level: jnp.ones((64 // stride, 64 // stride, 8), jnp.bfloat16) for level, stride in strides.items()
    }
    sizes = {level: jnp.array([64, 64]) // stride for level, stride in strides.items()}
    boxes = jnp.array([[3.0, 4, 40, 60], [0, 0, 52, 64]])

    def loss(maps, config):
        return pool_regions(maps, sizes, boxes, strides=strides, output_size=2, config=config).sum()

    for method in METHODS:
        config = ModelConfig(features=features, roi_pooling=method, roi_sampling_ratio=ratio)
        with jax.set_mesh(None):
            traced = jax.jit(jax.value_and_grad(functools.partial(loss, config=config))).trace(maps)
        for platform in ("cuda", "tpu"):
            assert "stablehlo" in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.slow
def test_every_head_pools_by_the_method(tiny_config, tiny_weights):
    """On two devices: no head gives what it gives with RoIAlign."""
    rng = np.random.default_rng(0)
    boxes = jnp.array([[[2.0, 3, 21, 30], [10, 10, 60, 50]]] * 2)
    sizes = {level: np.full((2, 2), 64 // stride, np.int32) for level, stride in PYRAMID.items()}
    maps = {
        level: rng.normal(size=(2, 64 // stride, 64 // stride, 16)).astype(np.float32)
        for level, stride in PYRAMID.items()
    }

    @functools.partial(jax.jit, static_argnums=2)
    def outputs(maps, weights, method):
        config = dataclasses.replace(tiny_config.model, roi_pooling=method)
        model = make_blueprint(config, num_classes=4, num_keypoints=9).build(weights)
        features, labels, valid = (
            Features(maps=maps, sizes=sizes),
            jnp.ones((2, 2), int),
            jnp.ones((2, 2), bool),
        )
        return (
            model.box_outputs(features, boxes)[1],
            model.mask_logits(features, boxes, labels, valid),
            model.keypoint_logits(features, boxes, valid),
        )

    with jax.set_mesh(make_mesh(jax.devices()[:2])):
        for aligned, pooled in zip(*(outputs(maps, tiny_weights, m) for m in ("align", "pool")), strict=True):
            assert np.isfinite(pooled).all()
            assert np.abs(pooled - aligned).max() > 0.01 * np.abs(aligned).max()


@pytest.fixture(scope="module")
def small_config(tiny_config):
    """The tiny model without keypoints and trained norms, so that it compiles faster."""
    model = dataclasses.replace(tiny_config.model, keypoint=False, backbone_norm="frozen_batch")
    return dataclasses.replace(tiny_config, model=model)


@pytest.fixture(scope="module")
def small_weights(small_config):
    blueprint = make_blueprint(small_config.model, num_classes=4)
    return jax.jit(lambda: blueprint.initialize(jax.random.key(0)))()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_model_trains_and_detects(method, small_config, small_weights, tiny_batch):
    """On two devices: each program is compiled once, and the content of padding has no effect."""
    model = dataclasses.replace(small_config.model, roi_pooling=method)
    config = dataclasses.replace(small_config, model=model)
    blueprint = make_blueprint(model, num_classes=4)
    noise = tiny_batch.replace(
        image_sizes=np.full((8, 2), (40, 50), np.int32), gt=tiny_batch.gt.replace(keypoints=None)
    )
    blank = noise.images.copy()
    blank[:, 40:] = 0
    blank[:, :, 50:] = 0
    mesh = make_mesh(jax.devices()[:2])
    found, compiled = [], []
    with jax.set_mesh(mesh), jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("jax._src.interpreters.pxla.logger.log", lambda *args: compiled.append(args))
        take_step, detect = compile_step(blueprint, config, mesh), jit_predict(blueprint, config, mesh)
        begin = jax.jit(
            functools.partial(make_state, blueprint, config=config), out_shardings=replicated(mesh)
        )
        folded = jax.jit(blueprint.fold, out_shardings=replicated(mesh))(small_weights)
        for batch in (noise, noise.replace(images=blank)):
            before = len(compiled)
            on_devices = jax.device_put(batch, batch_sharding(mesh))
            state, metrics = take_step(begin(small_weights), on_devices)
            detections = detect(folded, on_devices.images, on_devices.image_sizes)
            found.append(jax.device_get((state.weights(), metrics, detections)))
    assert len(compiled) == before > 0
    jax.tree.map(np.testing.assert_array_equal, *found)
    _, metrics, detections = found[0]
    assert all(np.isfinite(value) for value in metrics.values())
    assert detections.valid.any() and np.isfinite(detections.masks[detections.valid]).all()
