"""A head on those regions of a batch that are there: seldom as many as there is room for.

Shapes: B images, R regions of an image of which the valid ones come first, P x P cells.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

_GROUPS = 4


def apply_in_groups(
    head: Callable[[Array], Array], regions: Float[Array, "n p p c"], valid: Bool[Array, "b r"]
) -> Float[Array, "n ..."]:
    """``head(regions)`` where regions are valid; zero for groups of regions none of which is.

    The regions of each image are in four groups, and one that is empty in all images is not computed. On a
    CPU: an accelerator is better used by all at once.
    """
    images, rows = valid.shape
    if jax.default_backend() != "cpu" or rows % _GROUPS:
        return head(regions)

    def group(x: Array) -> Array:
        """``[B R ...]`` as ``[groups, B R / groups, ...]``."""
        x = x.reshape(images, _GROUPS, rows // _GROUPS, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(_GROUPS, -1, *x.shape[3:])

    def apply(operands: tuple[Array, Array]) -> Array:
        of_group, there = operands
        result = jax.eval_shape(head, of_group)
        return lax.cond(jnp.any(there), head, lambda _: jnp.zeros(result.shape, result.dtype), of_group)

    regions = regions.reshape(images, rows, *regions.shape[1:])
    grouped = lax.map(apply, (group(regions), group(valid)))
    outputs = grouped.reshape(_GROUPS, images, rows // _GROUPS, *grouped.shape[2:]).swapaxes(0, 1)
    return outputs.reshape(images * rows, *outputs.shape[3:])
