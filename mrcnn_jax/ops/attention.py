"""Self-attention over the cells of a map, with decomposed relative positions (arXiv 2112.01526).

Shapes: B maps (or windows of maps) of H x W cells, N heads of D channels.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Shaped


def attend(
    q: Float[Array, "b h w n d"],
    k: Float[Array, "b h w n d"],
    v: Float[Array, "b h w n d"],
    rows: Float[Array, "h h d"],
    columns: Float[Array, "w w d"],
) -> Float[Array, "b h w n d"]:
    """Every cell's mean of all values, weighted by softmax over the cells, in float32.

    A logit is the query's product with the key, divided by the root of D, plus its products with the vectors
    of how many rows and how many columns the two cells are apart (``positions.relative_positions``).
    """
    b, h, w, n, d = q.shape
    by_row = jnp.einsum("bhwnd,hkd->bnhwk", q, rows.astype(q.dtype))
    by_column = jnp.einsum("bhwnd,wkd->bnhwk", q, columns.astype(q.dtype))
    bias = (by_row[..., :, None] + by_column[..., None, :]).reshape(b, n, h * w, h * w)
    q, k, v = (x.reshape(b, h * w, n, d) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, bias=bias).reshape(b, h, w, n, d)


def partition(x: Shaped[Array, "b h w c"], window: int) -> Shaped[Array, "b2 s s c"]:
    """The map's windows of ``window`` x ``window`` cells; the last row and column are filled with zeros."""
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    x = x.reshape(b, x.shape[1] // window, window, x.shape[2] // window, window, c)
    return x.swapaxes(2, 3).reshape(-1, window, window, c)


def unpartition(windows: Float[Array, "b2 s s c"], size: tuple[int, int]) -> Float[Array, "b h w c"]:
    """The map of ``size`` (height, width) that ``partition`` cut into these windows."""
    window, c = windows.shape[2:]
    rows, columns = (-(-side // window) for side in size)
    x = windows.reshape(-1, rows, columns, window, window, c).swapaxes(2, 3)
    return x.reshape(-1, rows * window, columns * window, c)[:, : size[0], : size[1]]
