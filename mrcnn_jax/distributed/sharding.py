"""The mesh of devices, and how batches lie on it."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

_T = TypeVar("_T")


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of ``devices`` along ``data``; ``spatial`` (rows of the image) is 1 for now.

    If not given, they are all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices), 1), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices along ``data``."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, P())


def replicate(arrays: _T, mesh: Mesh) -> _T:
    """A pytree of arrays on every device, of all processes, each of which gives the same."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), arrays)


def on_own_devices(arrays: _T, mesh: Mesh) -> _T:
    """What ``replicate`` made, on this process's devices alone: those of ``mesh``; nothing is copied."""
    sharding = replicated(mesh)

    def own(x: Array) -> Array:
        copies = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

    return jax.tree.map(own, arrays)


def map_images(function: Callable[..., Any], *batched: Any) -> Any:
    """``vmap(function)`` over the images of a batch, each device computing its own images.

    Under a mesh (``jax.set_mesh``) it runs inside ``jax.shard_map``, because the partitioner otherwise
    gathers the operand of ``lax.top_k`` on every device. Without a mesh it is ``jax.vmap``. Arrays that
    ``function`` closes over are taken whole by every device.
    """
    mapped = jax.vmap(function)
    if jax.sharding.get_abstract_mesh().empty:
        return mapped(*batched)
    return jax.shard_map(mapped, in_specs=P("data"), out_specs=P("data"), check_vma=False)(*batched)
