import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.models.canvas import image_mask
from mrcnn_jax.models.folding import Folded, fold_norms
from mrcnn_jax.models.non_local import NonLocal
from mrcnn_jax.models.norm import make_norm
from mrcnn_jax.models.resnet import apply_stage, make_stage
from mrcnn_jax.models.variables import make_blueprint

NORMS = (None, "batch", "group")


def make_block(channels, *, subsampled=False, norm=None, dtype="float32"):
    kind = {"epsilon": 1e-5, "dtype": dtype, "rngs": nnx.Rngs(1)}
    make = None if norm is None else partial(make_norm, norm, **kind)
    return NonLocal(channels, subsampled=subsampled, norm=make, dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture
def block_by_hand():
    """``block_by_hand(subsampled)``: two channels, of which g and the output use the second.

    Weights are powers of two: those of cell i are proportional to 2^(a_i a_j), where a is the first channel.
    """

    def make(subsampled):
        block = make_block(2, subsampled=subsampled)
        first, second = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        block.theta.kernel[...] = jnp.log(2.0) * first.reshape(1, 1, 2, 1)
        block.phi.kernel[...] = first.reshape(1, 1, 2, 1)
        block.g.kernel[...] = second.reshape(1, 1, 2, 1)
        block.out.kernel[...] = second.reshape(1, 1, 1, 2)
        return block

    return make


ROW = np.array([[[[1, 3], [0, 6], [2, 0]]]], np.float32)  # three cells


def apply(block, x, mask=None):
    return block(jnp.asarray(x), None if mask is None else jnp.asarray(mask))


def test_every_cell_adds_a_weighted_mean_of_all_by_hand(block_by_hand):
    block = block_by_hand(False)
    # Weights of the first cell: 2, 1 and 4 of 7; of the second 1, 1, 1 of 3; of the third 4, 1, 16 of 21.
    means = [(2 * 3 + 6) / 7, (3 + 6) / 3, (4 * 3 + 6) / 21]
    np.testing.assert_allclose(apply(block, ROW)[0, 0], ROW[0, 0] + [[0, mean] for mean in means], rtol=1e-6)
    # Of an image that ends before the third cell, the weights are 2 and 1 of 3, and 1 and 1 of 2.
    mask = np.array([True, True, False]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(apply(block, ROW, mask)[0, 0, :2, 1], [3 + 12 / 3, 6 + 9 / 2], rtol=1e-6)


def test_a_subsampled_block_sees_maxima_of_2_x_2_cells_by_hand(block_by_hand):
    block = block_by_hand(True)
    # The maxima are (1, 6) and, of the last cell alone, (2, 0); the weights 2:4, 1:1 and 4:16.
    means = np.array([2 * 6 / 6, 6 / 2, 4 * 6 / 20])
    np.testing.assert_allclose(apply(block, ROW)[0, 0, :, 1], ROW[0, 0, :, 1] + means, rtol=1e-6)
    mask = np.array([True, True, False]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(apply(block, ROW, mask)[0, 0, :2, 1], [3 + 6, 6 + 6], rtol=1e-6)
    # An image that ends within a window: its maxima are (1, 3).
    mask[0, 0, 1] = False
    np.testing.assert_allclose(apply(block, ROW, mask)[0, 0, 0, 1], 3 + 3, rtol=1e-6)


@pytest.fixture(scope="module")
def maps():
    """Two maps of 8 x 6 cells, not negative; the first image has 5 x 3 of the cells."""
    x = np.abs(np.random.default_rng(0).normal(size=(2, 8, 6, 8))).astype(np.float32)
    return x, np.asarray(image_mask((8, 6), jnp.array([[5, 3], [8, 6]])))


def drawn(block, scale=0.3):
    """The block with all of its weights drawn."""
    rng = np.random.default_rng(1)
    graphdef, state = nnx.split(block)
    flat = [
        (path, v.replace(jnp.asarray(rng.normal(size=v.shape, scale=scale), v.dtype)))
        if isinstance(v, nnx.Param)
        else (path, v)
        for path, v in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


@pytest.mark.parametrize("subsampled", [False, True])
def test_the_formula(maps, subsampled):
    """Equations 1 and 6 of the paper, in float64, cell by cell."""
    x, mask = maps
    block = drawn(make_block(8, subsampled=subsampled))
    theta, phi, g, out = (
        np.asarray(getattr(block, name).kernel[...][0, 0], np.float64)
        for name in ("theta", "phi", "g", "out")
    )
    found = apply(block, x, mask)
    for image, (height, width) in enumerate([(5, 3), (8, 6)]):
        own = x[image, :height, :width].astype(np.float64)
        seen = own
        if subsampled:
            seen = np.array(
                [
                    [own[i : i + 2, j : j + 2].max(axis=(0, 1)) for j in range(0, width, 2)]
                    for i in range(0, height, 2)
                ]
            )
        seen = seen.reshape(-1, 8)
        for i in range(height):
            for j in range(width):
                weights = np.exp((own[i, j] @ theta) @ (seen @ phi).T / np.sqrt(4))
                mean = weights @ (seen @ g) / weights.sum()
                wanted = own[i, j] + mean @ out + np.asarray(block.out.bias)
                np.testing.assert_allclose(found[image, i, j], wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("subsampled", [False, True])
def test_it_begins_as_the_identity_and_is_trained(maps, norm, subsampled):
    x, mask = maps
    block = make_block(8, norm=norm, subsampled=subsampled)
    block.train()
    np.testing.assert_array_equal(np.where(mask, apply(block, x, mask), 0), np.where(mask, x, 0))
    goal = np.random.default_rng(2).normal(size=x.shape)

    def loss(block):
        return jnp.sum(apply(block, x, mask) * goal * mask)

    gradients = nnx.grad(loss)(block)
    gradient = gradients.out.kernel[...] if norm is None else gradients.norm.scale[...]
    assert (np.abs(gradient) > 1e-3).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("subsampled", [False, True])
def test_numerical_gradient(subsampled):
    x = np.abs(np.random.default_rng(3).normal(size=(1, 3, 4, 4))).astype(np.float32)
    mask = np.asarray(image_mask((3, 4), jnp.array([[3, 3]])))
    graphdef, state = nnx.split(drawn(make_block(4, subsampled=subsampled)))

    def outputs(state, x):
        return apply(nnx.merge(graphdef, state), x, mask)

    check_grads(jax.jit(outputs), (state, x), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("subsampled", [False, True])
def test_padding_changes_nothing(maps, norm, subsampled):
    """Neither what lies beyond an image nor the size of the map."""
    x, mask = maps
    block = drawn(make_block(8, norm=norm, subsampled=subsampled))
    block.train()
    run = nnx.jit(apply)
    found = np.where(mask, run(nnx.clone(block), x, mask), 0)
    noisy = np.where(mask, x, 9.0)
    np.testing.assert_array_equal(np.where(mask, run(nnx.clone(block), noisy, mask), 0), found)
    pad = partial(np.pad, pad_width=((0, 0), (0, 3), (0, 4), (0, 0)))
    larger = run(nnx.clone(block), pad(x, constant_values=9.0), pad(mask))
    np.testing.assert_allclose(np.where(mask, larger[:, :8, :6], 0), found, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", None])
def test_folding_its_norm_preserves_its_output(maps, norm):
    x, mask = maps
    block = drawn(make_block(8, norm=norm))
    block.eval()
    if norm:
        block.norm.mean[...], block.norm.var[...] = jnp.arange(8.0) / 8, jnp.arange(1.0, 9.0)
    wanted = apply(block, x, mask)
    fold_norms(block)
    assert norm is None or isinstance(block.norm, Folded)
    np.testing.assert_allclose(apply(block, x, mask), wanted, rtol=1e-5, atol=1e-5)


def test_bfloat16_has_its_softmax_in_float32(maps):
    x, mask = maps
    wanted = apply(drawn(make_block(8)), x, mask)
    block = drawn(make_block(8, dtype="bfloat16"))
    x = x.astype(jnp.bfloat16)
    found = apply(block, x, mask)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=0.03, atol=0.03)
    text = str(jax.make_jaxpr(lambda x: apply(block, x, mask))(x))
    (exponentials,) = [line for line in text.splitlines() if "= exp " in line]
    assert ":f32[" in exponentials


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2), (2, 4)])
@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.usefixtures("eight_devices")
def test_devices_that_share_an_image_see_all_of_it(maps, shape, subsampled):
    """Rows of 8 over 2 or 4 devices; the second image has 5 rows, so that some devices have only padding."""
    x, mask = maps
    x, mask = x[::-1], mask[::-1]
    graphdef, state = nnx.split(drawn(make_block(8, norm="group", subsampled=subsampled)))
    goal = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)

    def loss(state, x, mask):
        outputs = apply(nnx.merge(graphdef, state), x, mask)
        return jnp.sum(jnp.where(mask, outputs, 0) * goal), outputs

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, wanted), wanted_gradient = jax.jit(gradient)(state, x, mask)

    groups, shared_by = shape
    mesh = make_mesh(jax.devices()[: groups * shared_by], spatial_devices=shared_by)
    by_row = batch_sharding(mesh).images
    with jax.set_mesh(mesh):
        shardings = replicated(mesh), by_row, by_row
        compiled = jax.jit(gradient, in_shardings=shardings).lower(state, x, mask).compile()
        (_, found), found_gradient = compiled(*jax.device_put((state, x, mask), shardings))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(jax.tree.leaves(found_gradient), jax.tree.leaves(wanted_gradient), strict=True):
        # Against float64, the gradients of one device are off by up to 1e-5 of the largest; the order of sums
        # depends on the processor, too.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
    # Each device has the weights of its own cells only, and all of one map, whose channels phi and g halve.
    text = compiled.as_text()
    (weights,) = re.findall(r"f32\[([\d,]+)\]\S* exponential\(", text)
    seen = (4, 3) if subsampled else (8, 6)
    assert np.prod([*map(int, weights.split(","))]) == 2 // groups * 48 // shared_by * np.prod(seen)
    gathered = re.findall(r"f32(\[[\d,]+\])\S* all-gather\(", text)
    assert gathered == [str([2 // groups, *seen, 8]).replace(" ", "")]


def test_it_stands_before_the_last_block_of_a_stage():
    rngs = nnx.Rngs(0)
    config = ModelConfig(backbone_depth=18, backbone_width=4)
    first, last = stage = make_stage(config, 3, dtype=jnp.float32, rngs=rngs)
    block = drawn(make_block(16, norm="group"))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 8)), jnp.float32)
    found = apply_stage(stage, x, None, None, block)
    np.testing.assert_array_equal(found, last(block(first(x, None, None)), None, None))
    assert not np.allclose(found, apply_stage(stage, x), atol=0.1)


def test_a_backbone_has_it_in_stage_4_and_freezes_it_with_that_stage():
    def blueprint(**changes):
        common = {"backbone_depth": 18, "backbone_width": 4, "backbone_norm": "batch"}
        return make_blueprint(ModelConfig(**common, **changes), num_classes=1)

    trained = blueprint(backbone_frozen_stages=3, non_local="full")
    block = trained.shapes().keys() - blueprint(backbone_frozen_stages=3).shapes().keys()
    assert {name.removeprefix("backbone.non_local.") for name in block} == {
        *("theta.kernel", "phi.kernel", "g.kernel", "out.kernel"),
        *("norm.scale", "norm.bias", "norm.mean", "norm.var"),
    }
    assert trained.shapes()["backbone.non_local.theta.kernel"].shape == (1, 1, 16, 8)
    assert not block & trained.frozen_layers
    frozen = blueprint(backbone_frozen_stages=4, non_local="full")
    assert frozen.shapes() == trained.shapes(), "so a run may go on with other stages frozen"
    assert block <= frozen.frozen_layers
