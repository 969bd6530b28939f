"""Several devices that share an image: the mesh's axis ``spatial``, for images too large for one device.

The rows of all maps are split: the partitioner computes each device's rows, and exchanges those at the seams
that a convolution reads (halos). RoIAlign may read any row, so the maps are gathered before it, once; then
each device pools its share of an image's regions and runs the heads on it. Proposals, targets and losses,
which are small, are computed by every device of an image.

With one device per image, and without a mesh, these functions change nothing.

Shapes: B images, R regions of an image, S devices that share it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from mrcnn_jax.distributed.sharding import BY_IMAGE, BY_ROW, map_shards


def spatial_devices() -> int:
    """The number of devices that share an image."""
    return jax.sharding.get_abstract_mesh().shape.get("spatial", 1)


def rows_are_split() -> bool:
    """Whether the code being traced sees whole maps of which each device will compute some rows."""
    return spatial_devices() > 1 and "spatial" not in jax.sharding.get_abstract_mesh().manual_axes


def all_rows(arrays: Any) -> Any:
    """A pytree of ``[B H ...]``, or of regions ``[B R ...]``, with all rows on every device of an image."""
    return arrays if spatial_devices() == 1 else lax.with_sharding_constraint(arrays, BY_IMAGE)


def copy_maps(maps: Any) -> Any:
    """A pytree of maps ``[B H W C]``, all of whose rows each device needs, as ``[B S*H W C]``: S copies.

    That each device has a copy of its own leaves the gradients on the devices until they are added up: once,
    with each device keeping the sum of its own rows (reduce-scatter).
    """

    def gather(_: None, maps: Any) -> Any:
        return jax.tree.map(lambda rows: lax.all_gather(rows, "spatial", axis=1, tiled=True), maps)

    return maps if spatial_devices() == 1 else map_shards(gather, None, maps, split=BY_ROW)


def map_regions(function: Callable[..., Any], per_image: Any, *split: Any) -> Any:
    """``vmap(function)`` over the images of a batch, with each device processing its regions of its images.

    ``split`` are regions ``[B R ...]`` or maps of ``copy_maps``, and so is the result.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return jax.vmap(function)(per_image, *split)
    specs = (BY_IMAGE, *[BY_ROW] * len(split))
    by_image = jax.vmap(function)
    return jax.shard_map(by_image, in_specs=specs, out_specs=BY_ROW, check_vma=False)(per_image, *split)


def share_regions(regions: Any) -> Any:
    """A pytree of ``[B R ...]`` in the order in which the devices of an image get contiguous shares.

    The regions are dealt out like cards, because the valid ones come first. Rows of zeros are appended until
    each device has as many.
    """
    devices = spatial_devices()

    def deal(rows: Array) -> Array:
        images, count = rows.shape[:2]
        padding = [(0, 0), (0, -count % devices)] + [(0, 0)] * (rows.ndim - 2)
        by_turn = jnp.pad(rows, padding).reshape(images, -1, devices, *rows.shape[2:])
        return by_turn.swapaxes(1, 2).reshape(images, -1, *rows.shape[2:])

    return regions if devices == 1 else jax.tree.map(deal, all_rows(regions))


def collect_regions(outputs: Any, count: int) -> Any:
    """The rows of the ``count`` regions that ``share_regions`` was given, in their order, on every device."""
    devices = spatial_devices()

    def collect(rows: Array) -> Array:
        images = rows.shape[0]
        by_device = rows.reshape(images, devices, -1, *rows.shape[2:])
        return by_device.swapaxes(1, 2).reshape(images, -1, *rows.shape[2:])[:, :count]

    return outputs if devices == 1 else jax.tree.map(collect, all_rows(outputs))


def flatten_regions(regions: Array) -> Array:
    """``[B R ...]`` as ``[B*R ...]``, rows split over all devices; in which order depends on their number."""
    return _reshape(lambda rows: rows.reshape(-1, *rows.shape[2:]), regions, BY_ROW, P(("data", "spatial")))


def unflatten_regions(rows: Array, images: int) -> Array:
    """The inverse of ``flatten_regions``."""
    own = images
    if spatial_devices() > 1:
        own //= jax.sharding.get_abstract_mesh().shape["data"]
    return _reshape(lambda rows: rows.reshape(own, -1, *rows.shape[1:]), rows, P(("data", "spatial")), BY_ROW)


def _reshape(reshape: Callable[[Array], Array], x: Array, before: P, after: P) -> Array:
    """``reshape`` on each device: merging two axes that are split, the partitioner would gather them."""
    if spatial_devices() == 1:
        return reshape(x)
    return jax.shard_map(reshape, in_specs=before, out_specs=after, check_vma=False)(x)
