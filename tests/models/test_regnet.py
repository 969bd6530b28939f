"""RegNets; tests/parity compares whole models with Detectron2's."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.folding import fold_norms
from mrcnn_jax.models.regnet import SIZES, RegNet, SqueezeExcitation
from mrcnn_jax.models.variables import name_of
from mrcnn_jax.weights.layouts import conv, plain
from mrcnn_jax.weights.regnet import torchvision_name
from tests.fixtures.torchvision_regnet import BLOCKS, SIZE, seeded

FIXTURE = Path(__file__).parents[1] / "fixtures" / "torchvision_regnet.npz"


def _regnet(backbone, **changes):
    config = ModelConfig(backbone=backbone, **({"backbone_frozen_stages": 0} | changes))
    return RegNet(config, dtype=jnp.float32, rngs=nnx.Rngs(0))


# of Detectron2's models, without norms
PARAMETERS = {"regnetx_4gf": 20_681_184, "regnety_4gf": 19_495_384}


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_number_of_parameters(backbone):
    model = nnx.eval_shape(lambda: _regnet(backbone))
    assert model.strides == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    state = nnx.state(model, nnx.Param)
    assert sum(np.prod(v.shape) for _, v in nnx.to_flat_state(state)) == PARAMETERS[backbone]


# of torchvision's models, as they are published
ALL_PARAMETERS = {
    "regnetx_400mf": 5_495_976,
    "regnetx_800mf": 7_259_656,
    "regnetx_1_6gf": 9_190_136,
    "regnetx_3_2gf": 15_296_552,
    "regnetx_8gf": 39_572_648,
    "regnetx_16gf": 54_278_536,
    "regnetx_32gf": 107_811_560,
    "regnety_400mf": 4_344_144,
    "regnety_800mf": 6_432_512,
    "regnety_1_6gf": 11_202_430,
    "regnety_3_2gf": 19_436_338,
    "regnety_8gf": 39_381_472,
    "regnety_16gf": 83_590_140,
    "regnety_32gf": 145_046_770,
}


@pytest.mark.parametrize("backbone", ALL_PARAMETERS)
def test_sizes_have_torchvisions_numbers_of_parameters(backbone):
    """Counted by hand, as making all of them takes long."""
    size, inputs = SIZES[backbone], 32
    count = 3 * inputs * 9 + 2 * inputs
    for blocks, channels in zip(size.blocks, size.channels, strict=True):
        count += inputs * channels + 2 * channels  # the shortcut
        for _ in range(blocks):
            squeezed = round(inputs * size.squeezed)
            count += (inputs + 9 * min(size.group_width, channels) + channels + 6) * channels
            count += squeezed * (2 * channels + 1) + channels * (squeezed > 0)
            inputs = channels
    assert count + 1000 * (inputs + 1) == ALL_PARAMETERS[backbone]


@pytest.mark.parametrize("backbone", ["regnetx_8gf", pytest.param("regnety_3_2gf", marks=pytest.mark.slow)])
def test_features_equal_torchvision(backbone, monkeypatch):
    """Of few blocks, an eighth as wide; the first has smaller groups in one stage than in the others."""
    monkeypatch.setitem(SIZES, backbone, SIZES[backbone]._replace(blocks=BLOCKS))
    model = _regnet(backbone, backbone_width=8)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        make_layout = conv if len(variable.shape) == 4 else plain
        layout = make_layout(torchvision_name(name_of(path)), variable.shape)
        variable[...] = jnp.asarray(layout.read(seeded(layout.name, layout.shape)))
    graphdef, state = nnx.split(model)
    image = jnp.asarray(seeded("image", (1, 3, *SIZE)).transpose(0, 2, 3, 1) * 8)
    maps = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image))(state, image)
    with np.load(FIXTURE) as theirs:
        for level, found in maps.items():
            wanted = theirs[f"{backbone}/{level}"]
            np.testing.assert_allclose(np.ravel(found)[::37], wanted, atol=1e-5 * np.abs(wanted).max())


def test_squeeze_excitation_by_hand():
    """Means of 3 and 0 over the image's cells; what lies beyond does not count."""
    layer = SqueezeExcitation(2, 1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.reduce.kernel[...] = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    layer.expand.kernel[...] = np.array([[1.0, -1.0]]).reshape(1, 1, 1, 2)
    x = np.array([[[[2.0, 1], [4, -1], [9, 9]]]], np.float32)
    mask = np.array([True, True, False]).reshape(1, 1, 3, 1)
    x, mask = jnp.asarray(x), jnp.asarray(mask)
    expected = np.array([[2.0, 1], [4, -1]]) / (1 + np.exp([-3.0, 3.0]))
    np.testing.assert_allclose(layer(x, mask)[0, 0, :2], expected, rtol=1e-6)
    np.testing.assert_allclose(layer(x[:, :, :2], None)[0, 0], expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_padding_and_folded_norms_change_nothing(norm, monkeypatch):
    """A larger canvas, whatever it holds; and norms folded into the convolutions. Of few blocks."""
    monkeypatch.setitem(SIZES, "regnety_4gf", SIZES["regnety_4gf"]._replace(blocks=(1, 2, 1, 1)))
    model = _regnet("regnety_4gf", backbone_width=8, backbone_norm=norm)
    model.eval()
    rng = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if name_of(path).endswith(("scale", "var")):
            variable[...] = rng.uniform(0.5, 1.5, variable.shape)
        elif not name_of(path).endswith("kernel"):
            variable[...] = rng.normal(0, 0.1, variable.shape)
    image = rng.normal(size=(1, 64, 96, 3)).astype(np.float32)
    canvas = np.pad(image, [(0, 0), (0, 32), (0, 32), (0, 0)])
    sizes = jnp.array([[64, 96]])

    def run(model, image):
        graphdef, state = nnx.split(model)
        return jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, sizes))(state, image)

    wanted, larger = run(model, image), run(model, canvas)
    folded = run(fold_norms(model), canvas)
    for level, stride in model.strides.items():
        rows, columns = 64 // stride, 96 // stride
        scale = np.abs(wanted[level]).max()
        assert wanted[level].shape == (1, rows, columns, model.channels[level])
        for found in (larger, folded):
            np.testing.assert_allclose(
                found[level][:, :rows, :columns], wanted[level], atol=1e-5 * scale, err_msg=level
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "frozen_stages", "expected"),
    [
        (("stem", "kernel"), 0, False),
        (("stem_norm", "scale"), 1, True),
        (("s1", 0, "a", "kernel"), 1, False),
        (("s1", 0, "a", "kernel"), 2, True),
        (("s4", 1, "se", "reduce", "bias"), 5, True),
    ],
)
def test_frozen_stages_begin_with_the_stem(path, frozen_stages, expected):
    backbone = nnx.eval_shape(lambda: _regnet("regnety_4gf", backbone_frozen_stages=frozen_stages))
    assert backbone.is_frozen(path) is expected
