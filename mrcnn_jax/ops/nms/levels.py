"""Non-maximum suppression within every level of a pyramid, and the best boxes over all levels.

Shapes: L levels of at most N boxes, K outputs.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int32, Shaped

from mrcnn_jax.ops.nms.blocks import nms
from mrcnn_jax.ops.nms.pairs import all_survivors, to_rows
from mrcnn_jax.ops.nms.plain import float32_not_above
from mrcnn_jax.runtime.platforms import NMS_LEVELS, by_platform

# A GPU keeps a boolean for every pair: 256 MB. Levels of more are processed jointly, in blocks.
_MAX_PAIRS = 16384**2


def nms_levels(
    boxes: Sequence[Shaped[Array, "_ 4"]],
    scores: Sequence[Float[Array, " _"]],
    valid: Sequence[Bool[Array, " _"]],
    *,
    iou_threshold: float,
    max_outputs: int,
    form: str | None = None,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Indices of the best kept boxes among the concatenated levels, and which of the indices are valid.

    The result equals that of ``nms`` on the concatenation, with the level as the class: boxes of different
    levels never suppress each other. Every level's boxes must be given best first, as by ``lax.top_k``, and
    the scores of valid boxes must be finite. ``form`` is "joint" or "apart", by default the platform's
    (:mod:`~mrcnn_jax.runtime.platforms`).
    """
    forms = {
        name: functools.partial(function, iou_threshold=iou_threshold, max_outputs=max_outputs)
        for name, function in (("joint", _joint), ("apart", _apart))
    }
    operands = (list(boxes), list(scores), list(valid))
    if form is not None:
        return forms[form](*operands)
    return by_platform({platform: forms[name] for platform, name in NMS_LEVELS.items()}, *operands)


def _joint(
    boxes: list[Array], scores: list[Array], valid: list[Array], *, iou_threshold: float, max_outputs: int
) -> tuple[Array, Array]:
    """All levels in one run, which ends as soon as ``max_outputs`` boxes are kept."""
    return nms(
        jnp.concatenate(boxes),
        jnp.concatenate(scores),
        jnp.concatenate(valid),
        iou_threshold=iou_threshold,
        max_outputs=max_outputs,
        classes=jnp.concatenate([jnp.full(len(b), number, jnp.int32) for number, b in enumerate(boxes)]),
    )


def _apart(
    boxes: list[Array], scores: list[Array], valid: list[Array], *, iou_threshold: float, max_outputs: int
) -> tuple[Array, Array]:
    """Every level by itself: a fifth of the pairs in a pyramid of five levels."""
    largest = max(map(len, boxes))
    if len(boxes) * largest**2 > _MAX_PAIRS:
        return _joint(boxes, scores, valid, iou_threshold=iou_threshold, max_outputs=max_outputs)
    threshold = float32_not_above(iou_threshold)

    def keep(boxes: Shaped[Array, "n 4"], valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
        source = jnp.arange(len(valid), dtype=jnp.int32)
        return all_survivors(to_rows(boxes, source, None), valid, threshold)

    def stack(levels: list[Array]) -> Array:
        return jnp.stack([jnp.pad(x, [(0, largest - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in levels])

    kept = jax.vmap(keep)(stack(boxes), stack(valid))
    kept = jnp.concatenate([level[: len(b)] for level, b in zip(kept, boxes, strict=True)])
    # Equal scores keep their order. The two zeros are equal for a stable sort, but not for top_k.
    ranked = jnp.concatenate(scores).astype(jnp.float32)
    ranked = jnp.where(kept, jnp.where(ranked == 0, 0.0, ranked), -jnp.inf)
    _, index = jax.lax.top_k(ranked, min(max_outputs, len(ranked)))
    index = jnp.pad(index, (0, max_outputs - len(index)))
    found = jnp.arange(max_outputs) < jnp.sum(kept)
    return jnp.where(found, index, 0), found
