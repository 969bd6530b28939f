"""RoIAlign: the features of each region of interest, sampled bilinearly (Mask R-CNN, section 3 and figure 3).

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region.

This file places the regions on the feature maps; ``gather.py`` and ``einsum.py`` compute their features, and
``platforms.py`` chooses between these forms.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import assign_levels, level_numbers
from mrcnn_jax.ops.roi_align import einsum, gather
from mrcnn_jax.ops.roi_align.samples import Regions, Settings, per_point
from mrcnn_jax.runtime.batching import one_by_one
from mrcnn_jax.runtime.platforms import ROI_ALIGN, ROI_ALIGN_GRADIENT, by_platform


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Shaped[Array, "n 4"],
    *,
    stride: float,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    map_size: Int[Array, "2"] | None = None,
    reduction: str = "mean",
    form: str | None = None,
) -> Float[Array, "n p p c"]:
    """Features of ``output_size x output_size`` bins of each box, each bin the mean of its sampling points.

    With ``reduction`` "max", a bin is the maximum instead. ``form`` is the implementation, "cached", "gather"
    or "einsum", by default the platform's (:mod:`~mrcnn_jax.runtime.platforms`).

    ``boxes`` are in pixels, ``stride`` is the pixels per cell of ``features``. A bin has ``sampling_ratio``
    points per axis or, if that is 0, as many as it has cells, rounded up. ``aligned`` puts the centre of cell
    0 at half a stride (Detectron2's ROIAlignV2); without it, it is at 0, and boxes are at least one cell wide
    and high. Points more than one cell outside the map contribute 0, other points outside are moved to its
    edge. All as in torchvision's ``roi_align``. ``map_size`` is the number of rows and columns of
    ``features`` that belong to the image, if not all: the rest is padding.

    The result has the type of ``features``; positions, weights and sums are float32, in the gradient as well.
    ``boxes`` get no gradient (proposals are constants to the heads, Faster R-CNN 3.2), and there is no
    forward-mode derivative. With ``sampling_ratio`` 0 the time is determined by the box with the most points,
    and a box larger than twice the map gets as many points as one of that size. The gradient of a maximum
    goes to the first point that attains it.

    Raises ``ValueError`` for an unknown reduction or form, and for reduction "max" with ``sampling_ratio`` 0
    in the form "einsum".
    """
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    sizes = None if map_size is None else [map_size]
    settings = Settings(output_size, sampling_ratio, reduction, form)
    return _align([features], [stride], sizes, level, boxes, settings, aligned)


def multilevel_roi_align(
    features: dict[str, Float[Array, "_ _ c"]],
    boxes: Shaped[Array, "n 4"],
    *,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_size: float = 224.0,
    level_rule: str = "detectron2",
    map_sizes: dict[str, Int[Array, "2"]] | None = None,
    reduction: str = "mean",
    form: str | None = None,
) -> Float[Array, "n p p c"]:
    """:func:`roi_align` of each box on the pyramid level that :func:`assign_levels` gives it.

    ``features`` and ``map_sizes`` (see ``roi_align``) are keyed ``"p2"``, ``"p3"``, ... without gaps; level k
    has a stride of ``2**k`` pixels. Raises ``ValueError`` for keys of another form, or with gaps.
    """
    levels = level_numbers(features)
    level = assign_levels(
        boxes, min_level=levels[0], max_level=levels[-1], canonical_size=canonical_size, rule=level_rule
    )
    names = [f"p{level}" for level in levels]
    maps = [features[name] for name in names]
    sizes = None if map_sizes is None else [map_sizes[name] for name in names]
    strides = [2.0**level for level in levels]
    settings = Settings(output_size, sampling_ratio, reduction, form)
    return _align(maps, strides, sizes, level - levels[0], boxes, settings, aligned)


def _align(
    maps: list[Array],
    strides: list[float],
    map_sizes: list[Array] | None,
    level: Array,
    boxes: Array,
    settings: Settings,
    aligned: bool,
) -> Array:
    """RoIAlign of each box on ``maps[level]``."""
    if settings.reduction not in ("mean", "max"):
        raise ValueError(f"reduction is {settings.reduction!r}; it must be 'mean' or 'max'")
    if settings.form not in (None, *_FORWARD):
        raise ValueError(f"form is {settings.form!r}; it must be one of {', '.join(_FORWARD)}, or None")
    if settings.form == "einsum" and not _has_einsum(settings):
        raise ValueError("the form 'einsum' does not support reduction 'max' with sampling_ratio 0")
    stride = jnp.asarray(strides, jnp.float32)[level]
    shapes = jnp.asarray([m.shape[:2] for m in maps], jnp.int32)
    map_size = (shapes if map_sizes is None else jnp.stack(map_sizes).astype(jnp.int32))[level]

    corners = boxes.astype(jnp.float32)[:, [1, 0, 3, 2]] / stride[:, None] - (0.5 if aligned else 0.0)
    side = corners[:, 2:] - corners[:, :2]
    if not aligned:
        side = jnp.maximum(side, 1.0)
    if settings.sampling_ratio > 0:
        points = jnp.full(side.shape, settings.sampling_ratio, jnp.int32)
    else:
        # Integer division, because XLA computes 21 / 7 as 21 * (1 / 7), which is more than 3. The limit
        # bounds the time for boxes far out of bounds, as in padding.
        cells = jnp.clip(jnp.ceil(side).astype(jnp.int32), 0, 2 * map_size)
        points = (cells + settings.output_size - 1) // settings.output_size
    regions = Regions(
        level=level,
        start=corners[:, :2],
        bin_size=side / settings.output_size,
        points=points,
        map_size=map_size,
    )
    return _pool(maps, regions, settings, tuple(m.shape[:2] for m in maps))


_FORWARD: dict[str, Callable[..., Any]] = {
    "cached": functools.partial(gather.pool, cached=True),
    "gather": functools.partial(gather.pool, cached=False),
    "einsum": einsum.pool,
}
_BACKWARD: dict[str, Callable[..., Any]] = {
    "cached": functools.partial(gather.scatter, cached=True),
    "gather": functools.partial(gather.scatter, cached=False),
    "einsum": einsum.scatter,
}


def _run_form(
    forms: Mapping[str, Callable[..., Any]],
    platform_forms: dict[str, str],
    settings: Settings,
    *operands: Any,
) -> Any:
    """The result of the form in ``settings`` or, by default, of the platform's in ``platform_forms``."""
    if settings.form is not None:
        return forms[settings.form](*operands)
    if not _has_einsum(settings):
        forms = {**forms, "einsum": forms["gather"]}
    chosen = {platform: forms[form] for platform, form in platform_forms.items()}
    # One image of a batch at a time: a gather from the maps of several images is not fused with the
    # arithmetic on its values, and takes many times longer.
    chosen["cpu"] = one_by_one(chosen["cpu"])
    return by_platform(chosen, *operands)


def _has_einsum(settings: Settings) -> bool:
    return settings.reduction == "mean" or settings.sampling_ratio > 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pool(
    maps: list[Array], regions: Regions, settings: Settings, shapes: tuple[tuple[int, int], ...]
) -> Array:
    return _pool_forward(maps, regions, settings, shapes)[0]


def _pool_forward(
    maps: list[Array], regions: Regions, settings: Settings, shapes: tuple[tuple[int, int], ...]
) -> tuple[Array, tuple[Regions, Array | None]]:
    forms = {name: functools.partial(form, settings=settings) for name, form in _FORWARD.items()}
    pooled, max_point = _run_form(forms, ROI_ALIGN, settings, maps, regions)
    return pooled.astype(maps[0].dtype), (regions, max_point)


def _pool_backward(
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    residuals: tuple[Regions, Array | None],
    gradient: Array,
) -> tuple[list[Array], None]:
    """The gradients of the maps; the regions have none."""
    regions, max_point = residuals
    point_gradient = gradient.astype(jnp.float32)
    if settings.reduction == "mean":
        point_gradient = per_point(point_gradient, regions)
    forms = {
        name: functools.partial(form, settings=settings, shapes=shapes) for name, form in _BACKWARD.items()
    }
    gradients = _run_form(forms, ROI_ALIGN_GRADIENT, settings, regions, point_gradient, max_point)
    return [g.astype(gradient.dtype) for g in gradients], None


_pool.defvjp(_pool_forward, _pool_backward)
