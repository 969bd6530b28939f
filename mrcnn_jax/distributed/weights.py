"""Layers' weights on many devices: the sum of their gradients over the devices."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

_Weights = TypeVar("_Weights")
_Inputs = TypeVar("_Inputs")  # an array, or several
_Outputs = TypeVar("_Outputs")  # likewise


def apply_weights(
    function: Callable[[_Weights, _Inputs], _Outputs], weights: _Weights, x: _Inputs
) -> _Outputs:
    """``function(weights, x)``; the gradient of ``weights`` is summed over the images' devices in float32.

    ``function`` casts float32 weights to the dtype of ``x``, and maps each row (image or region) of ``x``
    by itself. The partitioner alone would sum the gradient where it arises, in bfloat16, and does so over
    devices that share an image (axis "spatial").
    """
    mesh = jax.sharding.get_abstract_mesh()
    data = dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get("data")
    if jax.tree.leaves(x)[0].dtype == jnp.float32 or data != AxisType.Auto or mesh.shape["data"] == 1:
        return function(weights, x)  # the dtypes are the same, or no partitioner sees more than one device
    mapped = jax.shard_map(
        function, in_specs=(P(), P("data")), out_specs=P("data"), axis_names={"data"}, check_vma=False
    )
    return mapped(weights, x)
