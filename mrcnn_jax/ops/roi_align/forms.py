"""RoIAlign: the features of each region of interest, sampled bilinearly (Mask R-CNN, section 3 and figure 3).

Shapes: H x W cells of a feature map, C channels, N regions, P x P bins of a region.

This file places the regions on the feature maps; ``gather.py``, ``windows.py`` and ``einsum.py`` compute the
features, and ``platforms.py`` chooses between these forms.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Shaped

from mrcnn_jax.ops.levels import maps_and_levels
from mrcnn_jax.ops.roi_align import einsum, gather, windows
from mrcnn_jax.ops.roi_align.samples import Regions, Settings, per_point
from mrcnn_jax.runtime.batching import one_by_one
from mrcnn_jax.runtime.platforms import ROI_ALIGN, ROI_ALIGN_GRADIENT, by_platform, platform


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

    With ``reduction`` "max", a bin is the maximum instead. ``form`` names the implementation: "cached",
    "gather", "windows" or "einsum", by default the platform's (:mod:`~mrcnn_jax.runtime.platforms`).

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

    A TPU's kernels are not partitioned: on several devices, call it inside ``jax.shard_map``.

    Raises ``ValueError`` for an unknown reduction or form, for reduction "max" in the form "windows", and for
    it with ``sampling_ratio`` 0 in the form "einsum".
    """
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    sizes = None if map_size is None else [map_size]
    settings = Settings(output_size, sampling_ratio, reduction, form)
    return align_on_maps([features], [stride], sizes, level, boxes, settings, aligned)


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
    placed = maps_and_levels(features, map_sizes, boxes, canonical_size=canonical_size, rule=level_rule)
    return align_on_maps(*placed, boxes, Settings(output_size, sampling_ratio, reduction, form), aligned)


def align_on_maps(
    maps: list[Array],
    strides: list[float],
    map_sizes: list[Array] | None,
    level: Array,
    boxes: Array,
    settings: Settings,
    aligned: bool,
) -> Array:
    """:func:`roi_align` of each box on ``maps[level]``, whose stride is ``strides[level]``."""
    if settings.reduction not in ("mean", "max"):
        raise ValueError(f"reduction is {settings.reduction!r}; it must be 'mean' or 'max'")
    if settings.form not in (None, *_FORWARD):
        raise ValueError(f"form is {settings.form!r}; it must be one of {', '.join(_FORWARD)}, or None")
    if settings.form == "windows" and settings.reduction == "max":
        raise ValueError("the form 'windows' does not support reduction 'max'")
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


def _in_the_type_of_the_maps(pool: Callable[..., Any]) -> Callable[..., Any]:
    """``pool``, whose features are float32, with features in the type of the maps."""

    def pool_in_type(maps: list[Array], regions: Regions, **options: Any) -> tuple[Array, Array | None]:
        pooled, max_point = pool(maps, regions, **options)
        return pooled.astype(maps[0].dtype), max_point

    return pool_in_type


def _of_bins(scatter: Callable[..., list[Array]]) -> Callable[..., list[Array]]:
    """``scatter``, which takes float32 gradients of points, for gradients of bins, and in their type."""

    def scatter_bins(
        regions: Regions, gradient: Array, max_point: Array | None, *, settings: Settings, **options: Any
    ) -> list[Array]:
        point_gradient = gradient.astype(jnp.float32)
        if settings.reduction == "mean":
            point_gradient = per_point(point_gradient, regions)
        added = scatter(regions, point_gradient, max_point, settings=settings, **options)
        return [a.astype(gradient.dtype) for a in added]

    return scatter_bins


_FORWARD: dict[str, Callable[..., Any]] = {
    "cached": _in_the_type_of_the_maps(functools.partial(gather.pool, cached=True)),
    "gather": _in_the_type_of_the_maps(functools.partial(gather.pool, cached=False)),
    "windows": windows.pool,
    "einsum": _in_the_type_of_the_maps(einsum.pool),
}
_BACKWARD: dict[str, Callable[..., Any]] = {
    "cached": _of_bins(functools.partial(gather.scatter, cached=True)),
    "gather": _of_bins(functools.partial(gather.scatter, cached=False)),
    "windows": windows.scatter,
    "einsum": _of_bins(einsum.scatter),
}


def _run_form(
    forms: Mapping[str, Callable[..., Any]],
    platform_forms: dict[str, str],
    settings: Settings,
    *operands: Any,
) -> Any:
    """The result of the form in ``settings`` or, by default, of the platform's in ``platform_forms``."""
    if settings.form == "windows":  # kernels for a TPU, which other platforms interpret
        kernels = forms["windows"]
        return by_platform({"tpu": kernels, "default": functools.partial(kernels, interpret=True)}, *operands)
    if settings.form is not None:
        return forms[settings.form](*operands)
    # A program with the kernels cannot be exported for other platforms as well.
    if settings.reduction == "max" or platform() != "tpu":
        forms = {**forms, "windows": forms["einsum" if _has_einsum(settings) else "gather"]}
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
    return pooled, (regions, max_point)


def _pool_backward(
    settings: Settings,
    shapes: tuple[tuple[int, int], ...],
    residuals: tuple[Regions, Array | None],
    gradient: Array,
) -> tuple[list[Array], None]:
    """The gradients of the maps; the regions have none."""
    regions, max_point = residuals
    forms = {
        name: functools.partial(form, settings=settings, shapes=shapes) for name, form in _BACKWARD.items()
    }
    return _run_form(forms, ROI_ALIGN_GRADIENT, settings, regions, gradient, max_point), None


_pool.defvjp(_pool_forward, _pool_backward)
