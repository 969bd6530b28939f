"""Assigns regions to the levels of a feature pyramid (FPN, section 4.2)."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int32, Shaped

from mrcnn_jax.ops.boxes import area


def maps_and_levels(
    features: Mapping[str, Array],
    map_sizes: Mapping[str, Array] | None,
    boxes: Shaped[Array, "n 4"],
    *,
    canonical_size: float,
    rule: str,
) -> tuple[list[Array], list[float], list[Array] | None, Int32[Array, " n"]]:
    """The maps of a pyramid as a list, their strides in pixels, their sizes, and each box's index among them.

    ``features`` and ``map_sizes`` are keyed ``"p2"``, ``"p3"``, ...; level k has a stride of ``2**k`` pixels.
    Raises ``ValueError`` as :func:`level_numbers` and :func:`assign_levels` do.
    """
    levels = level_numbers(features)
    level = assign_levels(
        boxes, min_level=levels[0], max_level=levels[-1], canonical_size=canonical_size, rule=rule
    )
    maps = [features[f"p{k}"] for k in levels]
    sizes = None if map_sizes is None else [map_sizes[f"p{k}"] for k in levels]
    return maps, [2.0**k for k in levels], sizes, level - levels[0]


def level_numbers(names: Iterable[str]) -> list[int]:
    """The sorted level numbers 2, 3, ... of ``names`` ``"p2"``, ``"p3"``, ... in any order.

    Raises ``ValueError`` for names of another form, or with gaps.
    """
    names = list(names)
    levels = sorted(int(name[1:]) if name[:1] == "p" and name[1:].isdigit() else -1 for name in names)
    if not levels or levels[0] < 0 or levels != list(range(levels[0], levels[-1] + 1)):
        raise ValueError(f"feature levels {names} must be named p2, p3, ... without gaps")
    return levels


def assign_levels(
    boxes: Shaped[Array, "n 4"],
    *,
    min_level: int,
    max_level: int,
    canonical_size: float = 224.0,
    rule: str = "detectron2",
) -> Int32[Array, " n"]:
    """Pyramid level of each box: 4 at ``canonical_size`` pixels, one more per doubling (FPN equation 1).

    The floor of ``4 + log2(sqrt(area) / canonical_size + 1e-8)`` (rule "detectron2"), of
    ``4 + log2(sqrt(area) / canonical_size) + 1e-6`` ("torchvision") or of
    ``2 + log2(sqrt(area) / (canonical_size / 4) + 1e-6)`` ("mmdetection"), clamped to ``min_level`` to
    ``max_level``. The rules differ for boxes a millionth below a power of two. Raises ``ValueError`` for any
    other rule.
    """
    ratio = jnp.sqrt(area(boxes)) / canonical_size
    match rule:
        case "detectron2":
            level = 4.0 + jnp.log2(ratio + 1e-8)
        case "torchvision":
            level = 4.0 + jnp.log2(ratio) + 1e-6
        case "mmdetection":
            # Rounded down before 2 is added, which could round up.
            level = 2.0 + jnp.floor(jnp.log2(jnp.sqrt(area(boxes)) / (canonical_size / 4.0) + 1e-6))
        case _:
            raise ValueError(
                f"level rule is {rule!r}; it must be 'detectron2', 'torchvision' or 'mmdetection'"
            )
    # Clamped as integers, so that the level of a box of NaN is that of a map, too.
    return jnp.clip(jnp.floor(level).astype(jnp.int32), min_level, max_level)
