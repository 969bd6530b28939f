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
    result = relu(*primals)
    (tangent,) = tangents
    # Not "> 0": XLA would compare the ReLU's input instead, and save it, too. On a GPU, a convolution whose
    # result has this second use is not fused with its ReLU.
    return result, jnp.where(result != 0, tangent, 0)
