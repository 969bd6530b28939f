import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.models.canvas import image_mask
from mrcnn_jax.models.convs import Conv, ConvNorm
from mrcnn_jax.models.folding import Folded, fold_norms
from mrcnn_jax.models.norm import FrozenBatchNorm, GroupNorm, make_norm
from mrcnn_jax.models.resnet import BasicBlock, Bottleneck
from mrcnn_jax.models.variables import arrays_of, make_blueprint


def _randomize_norms(model: nnx.Module) -> None:
    """Gives every batch norm of ``model`` random values, in place."""
    rng = np.random.default_rng(0)
    for _, norm in nnx.iter_modules(model):
        if isinstance(norm, FrozenBatchNorm | nnx.BatchNorm):
            shape = norm.mean[...].shape
            norm.scale[...], norm.var[...] = jnp.asarray(rng.uniform(0.5, 2, (2, *shape)), jnp.float32)
            norm.bias[...], norm.mean[...] = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)


def test_one_convolution_by_hand():
    layer = ConvNorm(
        1,
        1,
        1,
        norm="frozen_batch",
        kernel_init=nnx.initializers.constant(3.0),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    layer.norm.epsilon = 1.0
    layer.norm.scale[...], layer.norm.bias[...] = jnp.array([4.0]), jnp.array([0.5])
    layer.norm.mean[...], layer.norm.var[...] = jnp.array([10.0]), jnp.array([3.0])
    fold_norms(layer)
    # (3 x - 10) / sqrt(3 + 1) * 4 + 0.5 = 6 x - 19.5
    assert layer.conv.kernel[...].item() == 6
    assert layer.conv.bias[...].item() == -19.5
    assert layer(jnp.full((1, 1, 1, 1), 2.0)).item() == -7.5


@pytest.mark.parametrize("kind", ["frozen_batch", "batch"])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_folding_preserves_a_blocks_output(kind, bottleneck):
    options = (
        {"stride_in_1x1": False, "groups": 2, "group_width": 32, "dilation": 1, "deformable": ""}
        if bottleneck
        else {}
    )
    rngs, rng = nnx.Rngs(0), np.random.default_rng(0)
    norm = partial(make_norm, kind, epsilon=1e-5, dtype=jnp.float32, rngs=rngs)
    block = (Bottleneck if bottleneck else BasicBlock)(
        8, 8, stride=2, norm=norm, dtype=jnp.float32, rngs=rngs, **options
    )
    block.eval()
    _randomize_norms(block)
    x = jnp.asarray(rng.normal(size=(1, 8, 8, 8)), jnp.float32)
    masks = image_mask((8, 8), jnp.array([[6, 8]])), image_mask((4, 4), jnp.array([[3, 4]]))
    expected = block(x, *masks)
    found = fold_norms(block)(x, *masks)
    assert {type(module) for _, module in nnx.iter_modules(block)} == {
        type(block),
        Conv,
        Folded,
        nnx.List,
    }
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_all_batch_norms_and_no_group_norms_are_folded(tiny_config, kind):
    norms = dict.fromkeys(("backbone_norm", "fpn_norm", "box_norm", "mask_norm"), kind)
    config = dataclasses.replace(tiny_config.model, box_convs=1, **norms)
    blueprint = make_blueprint(config, num_classes=3, num_keypoints=5)
    folded = blueprint.folded()
    model = nnx.merge(folded.graphdef, nnx.from_flat_state(folded.variables.items()))
    kinds = {type(module) for _, module in nnx.iter_modules(model)}
    assert not kinds & {FrozenBatchNorm, nnx.BatchNorm}
    assert (Folded in kinds) == (kind == "batch")
    assert (GroupNorm in kinds) == (folded.shapes() == blueprint.shapes()) == (kind == "group")


def test_folding_preserves_a_models_features_and_its_weights(tiny_blueprint, tiny_weights, tiny_batch):
    model = tiny_blueprint.build(tiny_weights)
    _randomize_norms(model)
    weights = arrays_of(model)
    before = jax.device_get(weights)
    arrays = jax.jit(tiny_blueprint.fold)(weights)
    folded = tiny_blueprint.folded()
    assert {n: (a.shape, a.dtype) for n, a in arrays.items()} == {
        n: (s.shape, s.dtype) for n, s in folded.shapes().items()
    }
    images, sizes = tiny_batch.images[:1], np.array([[40, 64]], np.int32)
    expected, found = (
        jax.jit(lambda arrays, images, sizes, b=blueprint: b.build(arrays).features(images, sizes).maps)(
            arrays, images, sizes
        )
        for blueprint, arrays in ((tiny_blueprint, weights), (folded, arrays))
    )
    for level, features in expected.items():
        atol = 1e-5 * np.abs(features).max()
        np.testing.assert_allclose(found[level], features, rtol=0, atol=atol, err_msg=level)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(weights), before)


def test_gradients_pass_through_folded_norms():
    rngs, rng = nnx.Rngs(0), np.random.default_rng(0)
    norm = partial(make_norm, "frozen_batch", epsilon=1e-5, dtype=jnp.float32, rngs=rngs)
    block = Bottleneck(
        8,
        8,
        stride=2,
        stride_in_1x1=False,
        groups=2,
        group_width=32,
        dilation=1,
        deformable="",
        norm=norm,
        dtype=jnp.float32,
        rngs=rngs,
    )
    _randomize_norms(block)
    graphdef, params, frozen = nnx.split(block, nnx.Param, ...)
    x = jnp.asarray(rng.normal(size=(1, 8, 8, 8)), jnp.float32)
    masks = image_mask((8, 8), jnp.array([[6, 8]])), image_mask((4, 4), jnp.array([[3, 4]]))

    @partial(jax.jit, static_argnums=1)
    def gradients(params, folded):
        def loss(params):
            block = nnx.merge(graphdef, params, frozen)
            if folded:
                fold_norms(block, only_frozen=True)
            return jnp.sum(block(x, *masks) ** 2)

        return nnx.to_flat_state(jax.grad(loss)(params))

    expected, found = gradients(params, False), gradients(params, True)
    assert len(expected) == 4  # kernels
    for (path, wanted), (folded_path, gradient) in zip(expected, found, strict=True):
        assert folded_path == path
        atol = 1e-5 * np.abs(wanted[...]).max()
        np.testing.assert_allclose(gradient[...], wanted[...], rtol=0, atol=atol, err_msg=str(path))


def test_only_frozen_norms_are_folded(tiny_blueprint, tiny_weights):
    model = fold_norms(tiny_blueprint.build(tiny_weights), only_frozen=True)
    assert isinstance(model.backbone.bn1, Folded)  # of the frozen stem
    assert isinstance(model.backbone.layer1[0].bn1, nnx.BatchNorm)
