import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.mask_rcnn import normalize


def test_normalize_by_hand():
    config = ModelConfig(pixel_order="bgr", pixel_mean=(1.0, 2.0, 3.0), pixel_std=(2.0, 2.0, 4.0))
    images = jnp.full((1, 2, 2, 3), jnp.array([11, 22, 33]), jnp.uint8)  # red, green, blue
    out = normalize(images, jnp.array([[1, 2]]), config)
    np.testing.assert_allclose(out[0, 0], [[16, 10, 2], [16, 10, 2]])  # (33-1)/2, (22-2)/2, (11-3)/4
    np.testing.assert_array_equal(out[0, 1], 0)


@pytest.fixture(scope="module")
def features_of(tiny_blueprint):
    return jax.jit(lambda weights, images, sizes: tiny_blueprint.build(weights).features(images, sizes))


def test_what_padding_holds_changes_nothing(features_of, tiny_weights, tiny_batch):
    sizes = np.full((8, 2), (40, 50), np.int32)
    noisy = tiny_batch.images
    blank = noisy.copy()
    blank[:, 40:] = 0
    blank[:, :, 50:] = 0
    for a, b in zip(
        features_of(tiny_weights, noisy, sizes).values(),
        features_of(tiny_weights, blank, sizes).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_levels_anchors_and_rpn_outputs_agree(tiny_blueprint, tiny_weights, tiny_batch):
    model = tiny_blueprint.build(tiny_weights)
    features = model.features(jnp.asarray(tiny_batch.images[:1]), jnp.asarray(tiny_batch.image_sizes[:1]))
    assert {name: p.shape for name, p in features.items()} == {
        "p2": (1, 16, 16, 16),
        "p3": (1, 8, 8, 16),
        "p4": (1, 4, 4, 16),
        "p5": (1, 2, 2, 16),
        "p6": (1, 1, 1, 16),
    }
    anchors = model.anchors((64, 64))
    for level, (objectness, deltas) in model.rpn(features).items():
        assert objectness.shape == (1, len(anchors[level]))
        assert deltas.shape == (1, len(anchors[level]), 4)
    # the first cell of p3: a square of 16 pixels between a wide and a high one, all around the cell's corner
    np.testing.assert_allclose(anchors["p3"][1], [-8, -8, 8, 8], atol=1e-4)


def test_heads_give_a_row_per_region(tiny_blueprint, tiny_weights, tiny_batch):
    model = tiny_blueprint.build(tiny_weights)
    features = model.features(jnp.asarray(tiny_batch.images[:2]), jnp.asarray(tiny_batch.image_sizes[:2]))
    boxes = jnp.asarray(tiny_batch.gt.boxes[:2])
    logits, deltas = model.box_outputs(features, boxes)
    assert (logits.shape, deltas.shape) == ((2, 4, 4), (2, 4, 3, 4))
    assert model.mask_logits(features, boxes).shape == (2, 4, 28, 28, 3)
    assert model.keypoint_logits(features, boxes).shape == (2, 4, 56, 56, 5)
