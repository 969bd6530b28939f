"""The device mesh, and how arrays are placed on it."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

_T = TypeVar("_T")


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of ``devices``, by default all devices of all processes, along the axis ``data``.

    The axis ``spatial`` (image rows) has size 1 for now.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices), 1), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the leading axis over ``data``."""
    return NamedSharding(mesh, P("data"))


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


def map_shards(function: Callable[..., Any], weights: Any, *batched: Any) -> Any:
    """``function(weights, *batched)`` on every device, with all ``weights`` and the device's own images.

    Under a mesh (``jax.set_mesh``) it runs inside ``jax.shard_map``; without a mesh it is a plain call. The
    gradients of the weights are added up on each device, and then once over all.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(weights, *batched)
    specs = (P(), *[P("data")] * len(batched))
    return jax.shard_map(function, in_specs=specs, out_specs=P("data"), check_vma=False)(weights, *batched)
