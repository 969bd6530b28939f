"""A ReLU whose gradient needs only its result.

On a CPU the result is written to memory. Without the barrier XLA fuses the ReLU into its consumers and saves
its inputs for the backward pass, i.e. every residual branch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mrcnn_jax.runtime.barriers import cpu_barrier


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``x`` where it is positive, else 0; the gradient is 0 there, too."""
    return cpu_barrier(jnp.maximum(x, 0))


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    positive = relu(*primals)
    (tangent,) = tangents
    return positive, jnp.where(positive > 0, tangent, 0)
