"""How operations are put into a program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.inference.predict import predict
from mrcnn_jax.ops import platforms
from mrcnn_jax.ops import roi_align as roi_align_module
from mrcnn_jax.ops.platforms import as_call
from mrcnn_jax.ops.roi_align import roi_align
from mrcnn_jax.training.step import make_state, train_step


@jax.jit
def _double(x):
    return 2 * x


def _double_sine(x):
    return _double(jnp.sin(x))


def test_a_call_stays_one_in_the_compiled_program():
    def program(x, function):
        return function(function(x) + 1)

    x = jnp.linspace(0, 1, 12).reshape(3, 4)
    called = jax.jit(lambda x: program(x, as_call(_double_sine)))
    inlined = jax.jit(lambda x: program(x, jax.jit(_double_sine)))
    assert called.lower(x).compile().as_text().count(" call(") == 2
    assert " call(" not in inlined.lower(x).compile().as_text()
    np.testing.assert_array_equal(called(x), inlined(x))
    np.testing.assert_array_equal(jax.vmap(called)(x), inlined(x))
    np.testing.assert_allclose(
        jax.grad(lambda x: called(x).sum())(x), jax.grad(lambda x: inlined(x).sum())(x), rtol=1e-6
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_model_has_a_program_for_every_accelerator(
    tiny_config, tiny_blueprint, tiny_weights, tiny_batch, platform
):
    """Whose forms JAX can write down here, though nothing can run them."""

    def find(weights, batch):
        return predict(tiny_blueprint.build(weights), batch.images, batch.image_sizes, tiny_config)

    state = jax.eval_shape(lambda: make_state(tiny_blueprint, tiny_weights, tiny_config))
    learn = functools.partial(train_step, blueprint=tiny_blueprint, config=tiny_config)
    for program, arrays in ((find, tiny_weights), (learn, state)):
        lowered = jax.jit(program).trace(arrays, tiny_batch).lower(lowering_platforms=(platform,))
        assert "stablehlo.convolution" in lowered.as_text()  # XLA's, which a CPU's program has none of


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_gradient_of_roi_align_adds_up_without_scatter_on_an_accelerator(platform, sampling_ratio):
    def pooled(features):
        boxes = jnp.array([[1.0, 2, 9, 7], [0, 0, 16, 16]])
        settings = {"stride": 1.0, "output_size": 2, "sampling_ratio": sampling_ratio}
        return roi_align(features, boxes, aligned=True, **settings).sum()

    gradient = jax.jit(jax.grad(pooled)).trace(jnp.ones((16, 16, 3)))
    assert "scatter" not in gradient.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_forms_of_a_gpu_together_give_what_those_of_a_cpu_give(monkeypatch, sampling_ratio):
    """Values of "gather" with the gradient of "einsum"."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((16, 16, 3)), jnp.float32)
    corner = rng.uniform(-2, 12, (20, 2))
    boxes = jnp.asarray(np.concatenate([corner, corner + rng.uniform(0, 12, (20, 2))], 1), jnp.float32)

    def value_and_gradient():
        settings = {"stride": 1.0, "output_size": 3, "sampling_ratio": sampling_ratio, "aligned": True}

        def pooled(features):
            values = roi_align(features, boxes, **settings)
            return jnp.sum(values**2), values

        (_, values), gradient = jax.jit(jax.value_and_grad(pooled, has_aux=True))(features)
        return values, gradient

    expected = value_and_gradient()
    for name in ("ROI_ALIGN", "ROI_ALIGN_GRADIENT"):
        monkeypatch.setattr(
            roi_align_module, name, {"cpu": getattr(platforms, name)["default"]} | {"default": "cached"}
        )
    for array, reference in zip(value_and_gradient(), expected, strict=True):
        np.testing.assert_allclose(array, reference, rtol=1e-5, atol=1e-5)
