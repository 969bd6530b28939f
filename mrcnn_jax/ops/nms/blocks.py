"""Greedy non-maximum suppression, exact, with static shapes.

Shapes: N boxes, K outputs, B boxes of a block.

Boxes are processed in blocks, best first. A block is compared with all boxes kept so far, then its own boxes
with each other. The block size affects only speed and memory; ``platforms.py`` chooses it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, Int, Int32, Shaped

from mrcnn_jax.ops.nms.pairs import Rows, all_survivors, first_true, overlap, survivors, to_rows
from mrcnn_jax.ops.nms.plain import float32_not_above
from mrcnn_jax.runtime.batching import batch_max
from mrcnn_jax.runtime.platforms import NMS_BLOCK, by_platform


def nms(
    boxes: Shaped[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    iou_threshold: float,
    max_outputs: int,
    classes: Int[Array, " n"] | None = None,
    block: int | None = None,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Indices of the kept boxes, best first, and which of the ``max_outputs`` indices are valid.

    A box is kept unless its IoU with a better kept box exceeds ``iou_threshold``. Indices that are not valid
    are 0. Equal scores: lower index first. Boxes of different ``classes`` never suppress each other. The
    result equals torchvision's (``nms``, ``batched_nms``). ``block`` is the number of boxes decided together,
    by default the platform's (:mod:`~mrcnn_jax.runtime.platforms`); the result does not depend on it.
    """
    order = jnp.argsort(-scores, stable=True).astype(jnp.int32)
    rows = to_rows(boxes[order], order, None if classes is None else classes[order])
    run = functools.partial(_in_blocks, threshold=float32_not_above(iou_threshold), max_outputs=max_outputs)
    if block is not None:
        return run(rows, valid[order], block=block)
    forms: dict[str, Callable[..., Any]] = {
        platform: functools.partial(run, block=size) for platform, size in NMS_BLOCK.items()
    }
    # One image of a batch at a time, because the small steps are slower with a batch axis.
    forms["cpu"] = sequential_vmap(forms["cpu"])
    return by_platform(forms, rows, valid[order])


def _in_blocks(
    rows: Rows, valid: Bool[Array, " n"], *, threshold: np.float32, max_outputs: int, block: int
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """:func:`nms` of boxes sorted by score."""
    count = len(valid)
    if count == 0:
        return jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, jnp.bool_)
    if count <= block:
        alive = all_survivors(rows, valid, threshold)
        found = jnp.arange(max_outputs) < jnp.sum(alive)
        return jnp.where(found, rows.source[first_true(alive, max_outputs)], 0), found
    padding = -count % block
    rows, valid = jax.tree.map(lambda a: _pad_last(a, padding), (rows, valid))
    not_after = jnp.tri(block, dtype=bool)
    before = jnp.tri(block, k=-1, dtype=bool)

    # Loop bounds are shared by the whole batch. An image that would finish earlier keeps more boxes than are
    # returned, and compares with rows of zeros, which overlap nothing.
    def unfinished(state: tuple[Array, Array, Rows]) -> Bool[Array, ""]:
        start, num_kept, _ = state
        return (start < count) & (batch_max(max_outputs - num_kept) > 0)

    def decide(state: tuple[Array, Array, Rows]) -> tuple[Array, Array, Rows]:
        start, num_kept, kept = state
        candidates, alive = _slice_last((rows, valid), start, block)

        def compare(i: Array, alive: Bool[Array, " b"]) -> Bool[Array, " b"]:
            kept_block = _slice_last(kept, i * block, block)
            return alive & ~jnp.any(overlap(candidates, kept_block, threshold), axis=1)

        alive = lax.fori_loop(0, batch_max((num_kept + block - 1) // block), compare, alive)
        alive = survivors(alive, overlap(candidates, candidates, threshold) & before)
        # Positions of the 1st, 2nd, ... survivor, found by counting, which is faster than sorting.
        rank = jnp.sum(alive & not_after, axis=1, dtype=jnp.int32)
        position = jnp.sum(rank <= jnp.arange(block)[:, None], axis=1, dtype=jnp.int32)
        best = jax.tree.map(lambda a: a.at[..., position].get(mode="fill", fill_value=0), candidates)
        kept = jax.tree.map(
            lambda a, new: lax.dynamic_update_slice_in_dim(a, new, num_kept, a.ndim - 1), kept, best
        )
        return start + block, num_kept + rank[-1], kept

    room = max(len(valid) + block, max_outputs)
    kept = jax.tree.map(lambda a: jnp.zeros((*a.shape[:-1], room), a.dtype), rows)
    _, num_kept, kept = lax.while_loop(unfinished, decide, (jnp.int32(0), jnp.int32(0), kept))
    found = jnp.arange(max_outputs) < num_kept
    return jnp.where(found, kept.source[:max_outputs], 0), found


def _slice_last(tree: Any, start: Array, size: int) -> Any:
    """``size`` elements of every array's last axis, from ``start`` on."""
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size, a.ndim - 1), tree)


def _pad_last(array: Array, padding: int) -> Array:
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, padding)])
