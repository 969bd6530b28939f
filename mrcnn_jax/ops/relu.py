"""The rectifier, whose result is all that its gradient needs.

On a CPU it is also where values are written to memory. XLA would fuse it into all that reads it, and keep in
its stead, for the gradient, what it was made of: of a residual network the outputs of all branches.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mrcnn_jax.runtime.barriers import cpu_barrier


@jax.custom_jvp
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``x`` where it is positive, else 0, where the gradient is 0 too."""
    return cpu_barrier(jnp.maximum(x, 0))


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    positive = relu(*primals)
    (tangent,) = tangents
    return positive, jnp.where(positive > 0, tangent, 0)
