"""Deformable convolutions against torchvision's, and by hand."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.conv import convolve
from mrcnn_jax.ops.deform_conv import deform_conv
from mrcnn_jax.runtime.platforms import DEFORM_CONV

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures/torchvision_deform.npz")
SETTINGS = {
    "plain": {},
    "stride": {"stride": 2},
    "dilated": {"dilation": 2, "groups": 2},
}
FORMS = ("apart", "together")
MAPS, KERNEL = (0, 2, 3, 1), (2, 3, 1, 0)  # from torch's layout


def _ours(case, name):
    array = REFERENCE[f"{case}/{name}"]
    return array.transpose(KERNEL if name.endswith("kernel") else MAPS)


def test_an_offset_by_hand():
    """The centre's tap alone, half a cell down and two to the right, at a corner and at the other end."""
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    offsets = np.zeros((1, 3, 4, 9, 2), np.float32)
    offsets[:, :, :, 4] = [0.5, 2]
    found = jax.jit(deform_conv)(x, offsets.reshape(1, 3, 4, 18), kernel)[0, :, :, 0]
    # rows between 0 and 4 are halfway; below the last row there is half of it; no column is right of 3
    np.testing.assert_allclose(found, [[4, 5, 0, 0], [8, 9, 0, 0], [5, 5.5, 0, 0]])


@pytest.fixture(params=FORMS)
def each_form(request, monkeypatch):
    for platform in DEFORM_CONV:
        monkeypatch.setitem(DEFORM_CONV, platform, request.param)


@pytest.mark.usefixtures("each_form")
@pytest.mark.parametrize("case", SETTINGS)
def test_outputs_and_gradients_equal_torchvision(case):
    names = [name for name in ("x", "offsets", "kernel", "modulation") if f"{case}/{name}" in REFERENCE]
    given = [_ours(case, name) for name in names]
    convolution = partial(deform_conv, **SETTINGS[case])
    output, pull = jax.jit(partial(jax.vjp, convolution))(*given)
    wanted = _ours(case, "output")
    np.testing.assert_allclose(output, wanted, atol=1e-5 * np.abs(wanted).max())
    for name, gradient in zip(
        names, jax.jit(lambda pull, x: pull(x))(pull, _ours(case, "cotangent")), strict=True
    ):
        wanted = _ours(case, f"gradient/{name}")
        np.testing.assert_allclose(gradient, wanted, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_without_offsets_it_is_a_convolution(settings):
    rng = np.random.default_rng(0)
    stride, groups = settings.get("stride", 1), settings.get("groups", 1)
    x = rng.normal(size=(2, 8, 6, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4 // groups, 6)).astype(np.float32)
    offsets = np.zeros((2, 8 // stride, 6 // stride, 18), np.float32)
    found = jax.jit(partial(deform_conv, **settings))(x, offsets, kernel)
    wanted = jax.jit(partial(convolve, **settings))(x, kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_far_offsets_read_nothing():
    x = np.ones((1, 4, 4, 2), np.float32)
    offsets = np.full((1, 4, 4, 18), 1e20, np.float32)
    assert not np.any(jax.jit(deform_conv)(x, offsets, np.ones((3, 3, 2, 2), np.float32)))


@pytest.mark.usefixtures("each_form")
def test_gradients_of_a_cell_that_many_read_are_added_up_in_float32():
    """Every tap of 6 x 6 cells reads the upper left one: 324 ones, of which bfloat16 would add up 256."""
    x = jnp.ones((1, 6, 6, 1), jnp.bfloat16)
    taps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), axis=-1)
    cells = np.stack(np.meshgrid(*[np.arange(6)] * 2, indexing="ij"), axis=-1)
    offsets = jnp.asarray(-(cells[:, :, None, None] + taps), jnp.float32).reshape(1, 6, 6, 18)
    kernel = jnp.ones((3, 3, 1, 1), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda x: deform_conv(x, offsets, kernel).sum(dtype=jnp.float32)))(x)
    assert gradient.dtype == jnp.bfloat16 and float(gradient[0, 0, 0, 0]) == 324
    assert float(gradient.astype(jnp.float32).sum()) == 324
