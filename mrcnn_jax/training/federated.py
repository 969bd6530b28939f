"""Which categories the regions of an image train (federated loss: Zhou et al., arXiv 2103.07461, section 5).

LVIS's images are annotated for some categories only, and most are rare. So a region is a negative for its
image's own categories and for a few others alone, of which each image draws new ones in each step.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key


@jax.named_scope("targets")
def federated_classes(
    key: Key[Array, ""],
    labels: Int[Array, " r"],
    sampled: Bool[Array, " r"],
    weights: Float[Array, " c"],
    *,
    count: int,
) -> Bool[Array, " c"]:
    """The categories that an image's regions train: their own, and others up to ``count`` in all.

    The others are drawn without replacement, in proportion to their ``weights``; a weight of 0 is never
    drawn. The background counts as one, if a sampled region has it; and if the image has more categories of
    its own than ``count``, it keeps all of them (as in Detectron2's ``get_fed_loss_classes``).

    Args:
        key: For the draw.
        labels: Of the regions, 0 for the background.
        sampled: Whether a region is trained on; others are ignored.
        weights: Of categories 1 to C, not negative.
        count: How many categories, the background included.
    """
    num_classes = weights.shape[0]
    label = jnp.where(sampled, labels, num_classes + 1)  # the last is dropped
    own = jnp.zeros(num_classes + 1, bool).at[label].set(True, mode="drop")
    # The largest of log-weights with Gumbel noise are a draw without replacement.
    priority = jnp.log(weights) + jax.random.gumbel(key, (num_classes,))
    priority = jnp.where(own[1:], -jnp.inf, priority)
    best, index = jax.lax.top_k(priority, min(count, num_classes))
    drawn = (jnp.arange(len(index)) < count - own.sum()) & (best > -jnp.inf)
    return own[1:].at[jnp.where(drawn, index, num_classes)].set(True, mode="drop")
