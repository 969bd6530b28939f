"""Weights for images with other channels: only the first convolution's kernel depends on their number."""

import jax.numpy as jnp
import numpy as np

from mrcnn_jax.models.variables import Arrays, Blueprint

# The first convolution of ResNets; of RegNets, ConvNeXt and Swin; and of ViTs.
STEMS = ("backbone.conv1.kernel", "backbone.stem.kernel", "backbone.patch_embed.kernel")
_RGB = 3


def can_convert(known: int, channels: int) -> bool:
    """Whether weights for ``known`` channels can be made weights for ``channels``."""
    return known in (channels, _RGB) or _RGB < known < channels


def convert_kernel(kernel: np.ndarray, channels: int, *, axis: int) -> np.ndarray:
    """The kernel of a first convolution for another number of channels, which are its ``axis``.

    Further channels begin with zeros: the layer's outputs are those for the channels it knows, exactly, and
    the zeros have a gradient, so that training makes something of them at once. Of RGB the weights for one
    channel are the sum over the three, as if the image were gray in all of them; a second channel begins with
    zeros. Raises ValueError for other changes, which would drop what was learnt.
    """
    known = kernel.shape[axis]
    if not can_convert(known, channels):
        raise ValueError(f"weights for {known} channels cannot be used for {channels}")
    if channels < known:
        kernel, known = kernel.sum(axis=axis, keepdims=True), 1
    padding = [(0, channels - known) if i == axis else (0, 0) for i in range(kernel.ndim)]
    return np.pad(kernel, padding)


def convert_stem(arrays: Arrays, channels: int) -> Arrays:
    """A model's arrays by our names, with the first convolution for another number of channels."""
    return {
        name: jnp.asarray(convert_kernel(np.asarray(array), channels, axis=2))
        if name in STEMS and array.shape[2] != channels
        else array
        for name, array in arrays.items()
    }


def describe_new_channels(arrays: Arrays, blueprint: Blueprint) -> str:
    """A sentence on the channels whose weights are zero, as training begins; "" if there are none, or no
    others.

    Raises ValueError if these weights are frozen: then the channels would never have an effect.
    """
    (name,) = (name for name in STEMS if name in arrays)
    zero = np.flatnonzero(~np.asarray(arrays[name]).any(axis=(0, 1, 3))).tolist()
    if not zero or len(zero) == arrays[name].shape[2]:
        return ""
    found = f"the weights of {name} for channel {', '.join(map(str, zero))} of the images (from 0) are 0"
    if name in blueprint.frozen_layers:
        raise ValueError(
            f"{found} and frozen, so that it has no effect; set model.backbone_frozen_stages to 0, and "
            "train.frozen to what should be frozen without the first convolution, such as "
            "('backbone.layer1.*',)"
        )
    return f"{found}, to be trained"
