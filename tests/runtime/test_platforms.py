import functools

import jax
import pytest

from mrcnn_jax.inference.predict import predict
from mrcnn_jax.training.step import make_state, train_step


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_model_lowers_for_every_accelerator(
    tiny_config, tiny_blueprint, tiny_weights, tiny_batch, platform
):
    """JAX can lower for an accelerator without having one."""

    def find(weights, batch):
        return predict(tiny_blueprint.build(weights), batch.images, batch.image_sizes, tiny_config)

    state = jax.eval_shape(lambda: make_state(tiny_blueprint, tiny_weights, tiny_config))
    learn = functools.partial(train_step, blueprint=tiny_blueprint, config=tiny_config)
    for program, arrays in ((find, tiny_weights), (learn, state)):
        lowered = jax.jit(program).trace(arrays, tiny_batch).lower(lowering_platforms=(platform,))
        assert "stablehlo.convolution" in lowered.as_text()  # XLA's own convolution, absent on a CPU
