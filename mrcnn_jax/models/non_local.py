"""The non-local block (arXiv 1711.07971): adds to each cell of a map a weighted mean over its image's cells.

Shapes: B images, H x W cells of a map, C channels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.distributed.spatial import all_rows
from mrcnn_jax.models.canvas import Mask, mask_out
from mrcnn_jax.models.convs import Conv, he_normal
from mrcnn_jax.models.norm import Norm


class NonLocal(nnx.Module):
    """The embedded Gaussian block with half of the channels (its section 3.3), the identity at first.

    The weights of a cell's mean are the softmax over all cells j of theta(x_i) phi(x_j) / sqrt(C / 2); the
    division is from the authors' code and keeps new weights away from one-hot softmaxes. For a map of 50 x 84
    cells the weights are 4200^2 float32 numbers, 71 MB an image, and a quarter of that if ``subsampled``.

    Args:
        subsampled: phi and g see the maxima of 2 x 2 cells, as everywhere in that paper.
        norm: Makes the norm after the last convolution; its scale starts at zero (its section 4.1). None,
            where no norm is trained: the last convolution has a bias and starts at zero itself.
    """

    conv_norms = (("out", "norm"),)

    def __init__(
        self,
        channels: int,
        *,
        subsampled: bool,
        norm: Callable[[int], Norm] | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        kwargs: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        inner = channels // 2
        self.subsampled = subsampled
        embed = partial(Conv, channels, inner, 1, use_bias=False, kernel_init=he_normal, **kwargs)
        self.theta, self.phi, self.g = embed(), embed(), embed()
        last_init = nnx.initializers.zeros if norm is None else he_normal
        self.out = Conv(inner, channels, 1, use_bias=norm is None, kernel_init=last_init, **kwargs)
        self.norm = None if norm is None else norm(channels)
        if self.norm is not None:
            assert self.norm.scale is not None  # make_norm creates it
            self.norm.scale[...] = jnp.zeros(channels)

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask = None) -> Float[Array, "b h w c"]:
        """``x`` plus the block's residual; cells beyond the ``mask`` affect no others.

        ``x`` must not be negative, as after a ReLU: then zeros beyond the images are never a maximum.
        """
        batch, height, width, _ = x.shape
        seen, seen_mask = x, mask
        if self.subsampled:
            seen = nnx.max_pool(mask_out(x, mask), (2, 2), strides=(2, 2), padding="SAME")
            seen_mask = None if mask is None else mask[:, ::2, ::2]
        # Where devices share an image, each computes its own rows, from all rows of these two. For them the
        # partitioner gathers ``seen``, which is as large as both.
        keys, values = all_rows((self.phi(seen), self.g(seen)))

        def as_sequence(x: Array) -> Array:
            return x.reshape(batch, -1, 1, x.shape[-1])

        mean = jax.nn.dot_product_attention(
            as_sequence(self.theta(x)),
            as_sequence(keys),
            as_sequence(values),
            mask=None if seen_mask is None else seen_mask.reshape(batch, 1, 1, -1),
        )
        residual = self.out(mean.reshape(batch, height, width, -1))
        return x + (residual if self.norm is None else self.norm(residual, mask=mask))
