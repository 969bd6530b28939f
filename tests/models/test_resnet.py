import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models import resnet
from mrcnn_jax.models.resnet import ResNet, apply_stage, make_stage, stage_channels
from mrcnn_jax.models.variables import name_of


def _resnet(**changes):
    config = ModelConfig(**({"backbone_frozen_stages": 0} | changes))
    return ResNet(config, dtype=jnp.float32, rngs=nnx.Rngs(0))


# of torchvision's models: convolutions only, without fc
CONV_PARAMETERS = {18: 11_166_912, 34: 21_267_648, 50: 23_454_912, 101: 42_394_816, 152: 57_992_384}


@pytest.mark.parametrize("depth", [18, 34, 50, 101, pytest.param(152, marks=pytest.mark.slow)])
def test_number_of_parameters(depth):
    state = nnx.state(nnx.eval_shape(lambda: _resnet(backbone_depth=depth)), nnx.Param)
    assert sum(np.prod(v.shape) for _, v in nnx.to_flat_state(state)) == CONV_PARAMETERS[depth]


@pytest.mark.parametrize(
    "depth",
    [18, pytest.param(50, marks=pytest.mark.slow)],  # tests/parity compares such backbones
)
def test_features_equal_torchvision(depth, torchvision_backbone):
    script, expected = torchvision_backbone
    graphdef, state = _with_seeded_weights(lambda: _resnet(backbone_depth=depth), script)
    features_of = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image))
    image = jnp.asarray(script.seeded("image", (1, 3, 64, 96)).transpose(0, 2, 3, 1) * 8)
    for level, feature in features_of(state, image).items():
        wanted = expected[f"resnet{depth}_{level}"]
        np.testing.assert_allclose(np.ravel(feature)[::37], wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_stage_5_with_stride_1_equals_torchvision_with_its_strides_set_to_1(depth, torchvision_backbone):
    """Paper figure 4, left: a region of 7 x 7 cells stays one."""
    script, expected = torchvision_backbone
    config = ModelConfig(backbone_depth=depth, features="c4", res5_stride=1)

    def make():
        return make_stage(config, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))

    graphdef, state = _with_seeded_weights(make, script, prefix="layer4.")
    regions = jnp.asarray(
        script.seeded("regions", (2, stage_channels(config, 3), 7, 7)).transpose(0, 2, 3, 1)
    )
    outputs = jax.jit(lambda state, x: apply_stage(nnx.merge(graphdef, state), x))(state, regions * 8)
    assert outputs.shape == (2, 7, 7, stage_channels(config, 4))
    wanted = expected[f"resnet{depth}_res5"]
    np.testing.assert_allclose(np.ravel(outputs)[::37], wanted, atol=1e-5 * np.abs(wanted).max())


def _with_seeded_weights(make, script, prefix=""):
    """The module's structure, and its arrays as ``script`` seeds those of torchvision's names."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    filled = []
    for path, variable in nnx.to_flat_state(state):
        module, _, leaf = f"{prefix}{name_of(path)}".rpartition(".")
        if leaf == "kernel":
            height, width, inputs, outputs = variable.shape
            value = script.seeded(f"{module}.weight", (outputs, inputs, height, width)).transpose(2, 3, 1, 0)
        else:
            value = script.seeded(f"{module}.{leaves[leaf]}", variable.shape)
        filled.append((path, variable.replace(jnp.asarray(value))))
    return graphdef, nnx.from_flat_state(filled)


def test_stride_in_1x1_moves_the_stride():
    def downsampling_kernels(stride_in_1x1):
        block = nnx.eval_shape(lambda: _resnet(backbone_stride_in_1x1=stride_in_1x1)).layer2[0]
        return block.conv1.options["stride"], block.conv2.options["stride"]

    assert downsampling_kernels(True) == (2, 1)
    assert downsampling_kernels(False) == (1, 2)


@pytest.mark.parametrize(
    ("path", "frozen_stages", "expected"),
    [
        (("conv1", "kernel"), 0, False),
        (("conv1", "kernel"), 1, True),
        (("bn1", "scale"), 1, True),
        (("layer1", 0, "conv1", "kernel"), 1, False),
        (("layer1", 0, "conv1", "kernel"), 2, True),
        (("layer2", 3, "bn3", "bias"), 2, False),
        (("layer4", 0, "downsample", 0, "kernel"), 5, True),
    ],
)
def test_frozen_stages_begin_with_the_stem(path, frozen_stages, expected):
    backbone = nnx.eval_shape(lambda: _resnet(backbone_frozen_stages=frozen_stages))
    assert backbone.is_frozen(path) is expected


def test_batch_norm_of_a_frozen_stage_keeps_its_statistics():
    model = nnx.eval_shape(
        lambda: _resnet(backbone_depth=18, backbone_norm="batch", backbone_frozen_stages=2)
    )
    trained = {name_of(path) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))}
    assert not any(name.startswith(("bn1", "layer1")) for name in trained)
    assert "layer2.0.bn1.mean" in trained


@pytest.mark.parametrize(("platform", "stages"), [("cpu", 4), ("gpu", 0), ("tpu", 0)])
def test_by_default_only_a_cpu_recomputes_stages(platform, stages, monkeypatch):
    monkeypatch.setattr(resnet, "platform", lambda: platform)
    model = nnx.eval_shape(lambda: _resnet(backbone_depth=18, backbone_width=8))
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda state, image: nnx.merge(graphdef, state)(image))(state, image)
    assert [eqn.primitive.name for eqn in jaxpr.eqns].count("remat2") == stages


@pytest.mark.slow
def test_recomputed_stages_save_memory_and_preserve_gradients():
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, 64, 64, 3), np.float32))

    model = nnx.jit(lambda: _resnet(backbone_depth=18, backbone_width=8))()
    state = nnx.state(model)

    def measure(recomputed):
        graphdef = nnx.graphdef(
            nnx.eval_shape(
                lambda: _resnet(backbone_depth=18, backbone_width=8, backbone_recomputed_stages=recomputed)
            )
        )

        def total(state):
            return sum(jnp.sum(feature**2) for feature in nnx.merge(graphdef, state)(image).values())

        kept = jax.eval_shape(lambda state: jax.vjp(total, state)[1], state)
        compute = jax.jit(jax.value_and_grad(total))
        return functools.partial(compute, state), sum(leaf.size for leaf in jax.tree.leaves(kept))

    computations, sizes = zip(*map(measure, (0, 1, 2, 4)), strict=True)
    assert list(sizes) == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    (expected, expected_gradient), (value, gradient) = computations[0](), computations[-1]()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
