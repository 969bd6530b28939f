"""Vision transformers and their pyramid; tests/parity compares whole models with Detectron2's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig, presets
from mrcnn_jax.models.simple_pyramid import SimplePyramid
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.models.vit import SIZES, Size, ViT


@pytest.fixture
def two_blocks_a_quarter(monkeypatch):
    monkeypatch.setitem(SIZES, "vit_b", Size(channels=128, depth=8, heads=2))


def _vit(**changes):
    config = ModelConfig(backbone="vit_b", backbone_width=8, **changes)
    model = ViT(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for block in model.blocks:
        for table in (block.attn.rel_pos_h, block.attn.rel_pos_w):
            table[...] = 0.1 * jax.random.normal(jax.random.key(1), table.shape)
    return model


def _run(model, images, keys=None):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, *given: nnx.merge(graphdef, state)(given[0], None, given[1])["c4"])(
        state, images, keys
    )


# of Detectron2's ViT without the class token's position, and of its pyramid
PARAMETERS = {"b": (85_888_256, 5_560_000), "l": (303_431_680, 7_805_184), "h": (631_115_520, 10_640_192)}


@pytest.mark.parametrize("size", PARAMETERS)
def test_number_of_parameters(size):
    shapes = make_blueprint(presets.vitdet(size).model, num_classes=80).shapes()
    found = tuple(
        sum(np.prod(shape.shape) for name, shape in shapes.items() if name.startswith(part))
        for part in ("backbone.", "fpn.")
    )
    assert found == PARAMETERS[size]


@pytest.mark.slow  # test_four_stages.py has a quick one
def test_paths_are_dropped_by_image(two_blocks_a_quarter):
    """An image's map depends on its own key alone, and is that of inference without a key."""
    model = _vit(backbone_drop_path=0.5)
    images = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), 3)
    found = _run(model, images, keys)
    np.testing.assert_allclose(_run(model, images[1:], keys[1:]), found[1:], atol=1e-5)
    assert not np.allclose(_run(model, images, keys[::-1]), found, atol=1e-2)
    assert not np.allclose(_run(model, images), found, atol=1e-2)


def test_windows_see_themselves_and_the_last_of_a_quarter_sees_all(two_blocks_a_quarter):
    """Of 20 x 20 cells, the first window's 14 x 14 depend on the last cell by global attention only."""
    images = jax.random.normal(jax.random.key(0), (1, 320, 320, 3))
    changed = images.at[:, -16:, -16:].add(1)

    def first_window(model):
        return np.abs(_run(model, changed) - _run(model, images))[0, :14, :14].max()

    model = _vit()
    assert first_window(model) > 1e-6
    for block in list(model.blocks)[1::2]:
        assert not block.windowed
        block.attn.proj.kernel[...] = jnp.zeros_like(block.attn.proj.kernel[...])
    assert first_window(model) == 0


@pytest.mark.slow
def test_recomputing_changes_nothing(two_blocks_a_quarter):
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))

    def gradient(recomputed):
        graphdef, state = nnx.split(_vit(backbone_recomputed_stages=recomputed))
        loss = jax.jit(jax.grad(lambda s: nnx.merge(graphdef, s)(images)["c4"].var()))
        return jax.tree.leaves(loss(state))

    for kept, recomputed in zip(gradient(0), gradient(4), strict=True):
        np.testing.assert_allclose(kept, recomputed, rtol=1e-4, atol=1e-7)


def test_the_levels_of_the_pyramid():
    pyramid = SimplePyramid(16, 4, norm="layer", dtype=jnp.float32, rngs=nnx.Rngs(0))
    maps = pyramid({"c4": jnp.ones((1, 4, 6, 16))}, {})
    shapes = {level: x.shape[1:] for level, x in maps.items()}
    expected = {"p2": (16, 24), "p3": (8, 12), "p4": (4, 6), "p5": (2, 3), "p6": (1, 2)}
    assert shapes == {level: (*size, 4) for level, size in expected.items()}
    assert pyramid.strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    assert pyramid.pooled_levels == ("p2", "p3", "p4", "p5")
