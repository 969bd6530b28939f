"""The device mesh, and how arrays are placed on it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mrcnn_jax.types import Batch

BY_IMAGE = P("data")
BY_ROW = P("data", "spatial")  # the rows of images and maps, and the regions of images

_T = TypeVar("_T")


def make_mesh(devices: list[jax.Device] | None = None, *, spatial_devices: int = 1) -> Mesh:
    """A mesh of ``devices``, by default all devices of all processes.

    Batches are split over the axis ``data``, and the rows of an image over the axis ``spatial``, which has
    ``spatial_devices`` devices: of one process, or all those of several successive processes.

    Raises:
        ValueError: ``spatial_devices`` neither divides the number of devices of a process nor is made of
            whole processes.
    """
    devices = jax.devices() if devices is None else devices
    axes, types = ("data", "spatial"), (AxisType.Auto,) * 2
    if spatial_devices == 1:
        return jax.make_mesh((len(devices), 1), axes, axis_types=types, devices=devices)
    return Mesh(_by_image(devices, spatial_devices), axes, axis_types=types)


def _by_image(devices: Sequence[Any], spatial_devices: int) -> np.ndarray:
    """The devices of each image, in a row each, for :func:`make_mesh`.

    ``jax.make_mesh`` might give the rows of an image to devices of more processes than need be.
    """
    counts = set(Counter(device.process_index for device in devices).values())
    whole_processes = len(counts) == 1 and not spatial_devices % max(counts)
    if any(count % spatial_devices for count in counts) and (
        not whole_processes or len(devices) % spatial_devices
    ):
        of_each = " or ".join(map(str, sorted(counts)))
        raise ValueError(
            f"spatial_devices ({spatial_devices}) must divide the number of devices of each process "
            f"({of_each}), or be a multiple of it that divides the number of all devices ({len(devices)})"
        )
    by_process = sorted(devices, key=lambda device: device.process_index)
    return np.array(by_process).reshape(-1, spatial_devices)


def batch_sharding(mesh: Mesh) -> Batch:
    """The sharding of each field of a batch: images over ``data``, and their rows over ``spatial``."""
    by_image: Any = NamedSharding(mesh, BY_IMAGE)
    by_row: Any = NamedSharding(mesh, BY_ROW)
    return Batch(images=by_row, image_sizes=by_image, ids=by_image, gt=by_image, proposals=by_image)


def share_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Which share of each batch this process loads, from 0, and the number of shares.

    They are as many as processes, except that processes that share an image all load it.
    """
    of_process = mesh.size // jax.process_count()
    sharing = max(1, mesh.shape["spatial"] // of_process)
    return jax.process_index() // sharing, jax.process_count() // sharing


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """A batch as arrays on the devices of all processes, from this process's share of it, in NumPy arrays."""
    _, shares = share_of_batch(mesh)

    def place(sharding: NamedSharding, field: Any) -> Any:
        return jax.tree.map(
            # The whole shape is given, as the process may have rows of an image that its devices do not.
            lambda x: jax.make_array_from_process_local_data(sharding, x, (len(x) * shares, *x.shape[1:])),
            field,
        )

    return jax.tree.map(place, batch_sharding(mesh), batch)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that has the same values on every device."""
    return NamedSharding(mesh, P())


def replicate(arrays: _T, mesh: Mesh) -> _T:
    """A pytree of arrays replicated to every device of all processes, which must all pass the same values."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), arrays)


def on_local_devices(arrays: _T, mesh: Mesh) -> _T:
    """Arrays from ``replicate`` as arrays on ``mesh``, a mesh of this process's devices; copies nothing."""
    sharding = replicated(mesh)

    def own(x: Array) -> Array:
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

    return jax.tree.map(own, arrays)


def map_images(function: Callable[..., Any], *batched: Any) -> Any:
    """``vmap(function)`` over the images of a batch, with each device processing its own images.

    The partitioner alone would gather the operand of ``lax.top_k`` on every device.
    """
    return map_shards(lambda _, *images: jax.vmap(function)(*images), None, *batched)


def map_shards(function: Callable[..., Any], weights: Any, *batched: Any, split: P = BY_IMAGE) -> Any:
    """``function(weights, *batched)`` on every device, with all ``weights`` and the device's own images.

    With ``BY_ROW`` as ``split``, the second axis of all ``batched`` arrays and of the result is split, too.
    Under a mesh (``jax.set_mesh``) it runs inside ``jax.shard_map``; without a mesh it is a plain call. The
    gradients of the weights are added up on each device, and then once over all.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(weights, *batched)
    specs = (P(), *[split] * len(batched))
    return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)(weights, *batched)
