"""Layouts of our arrays in other systems, and conversion of whole models.

Layouts are exactly invertible: arrays are transposed, reordered and sliced, never computed with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.weights.channels import STEMS, can_convert, convert_kernel
from mrcnn_jax.weights.mismatches import check_fit

Shape = tuple[int, ...]

# torch's names of an array in its layer.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclass(frozen=True)
class Layout:
    """How another system stores one of our arrays: its name, and the order of its axes."""

    name: str  # the other system's
    shape: Shape  # the other system's
    read: Callable[[np.ndarray], np.ndarray]  # from their array to ours
    write: Callable[[np.ndarray], np.ndarray]  # from our array to theirs


def plain(name: str, shape: Shape) -> Layout:
    """The same array under another name."""
    return Layout(name, shape, read=lambda x: x, write=lambda x: x)


def transposed(name: str, shape: Shape, axes: tuple[int, ...]) -> Layout:
    """An array whose axes are our ``axes`` in the other system's order."""
    their_shape = tuple(shape[axis] for axis in axes)
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(name, their_shape, read=lambda x: x.transpose(inverse), write=lambda x: x.transpose(axes))


def conv(name: str, shape: Shape) -> Layout:
    """A convolution kernel: HWIO here, OIHW in torch."""
    return transposed(name, shape, (3, 2, 0, 1))


def deconv(name: str, shape: Shape) -> Layout:
    """A transposed convolution's kernel: HWIO here, IOHW in torch."""
    return transposed(name, shape, (2, 3, 0, 1))


def linear(name: str, shape: Shape) -> Layout:
    """A linear layer's kernel: (in, out) here, (out, in) in torch."""
    return transposed(name, shape, (1, 0))


def linear_after_flatten(name: str, shape: Shape, *, channels: int) -> Layout:
    """Kernel of the first linear layer after a flattened map: HWC order here, CHW in torch."""
    inputs, outputs = shape
    side = round((inputs / channels) ** 0.5)
    ours, theirs = (side, side, channels, outputs), (outputs, channels, side, side)
    return Layout(
        name,
        (outputs, inputs),
        read=lambda x: x.reshape(theirs).transpose(2, 3, 1, 0).reshape(shape),
        write=lambda x: x.reshape(ours).transpose(3, 2, 0, 1).reshape(outputs, inputs),
    )


def with_background(layout: Layout, rows: int) -> Layout:
    """``layout`` with ``rows`` unused rows of the background in front of the other system's first axis.

    They are dropped on reading and zero on writing.
    """
    return Layout(
        layout.name,
        (layout.shape[0] + rows, *layout.shape[1:]),
        read=lambda x: layout.read(x[rows:]),
        write=lambda x: np.pad(layout.write(x), [(rows, 0)] + [(0, 0)] * (len(layout.shape) - 1)),
    )


def background_last(layout: Layout) -> Layout:
    """``layout`` with the background's row first here and last in the other system."""
    return Layout(
        layout.name,
        layout.shape,
        read=lambda x: layout.read(np.roll(x, 1, axis=0)),
        write=lambda x: np.roll(layout.write(x), -1, axis=0),
    )


def read_model(
    arrays: Mapping[str, np.ndarray], layouts: Mapping[str, Layout], *, source: str
) -> dict[str, np.ndarray]:
    """Our arrays, by our names, from another system's.

    A first convolution for other channels is converted (``channels.convert_kernel``), if it can be.

    Raises ValueError that counts the missing and unexpected arrays and the wrong shapes, with examples by the
    other system's names; ``source`` is named in the message.
    """
    for name, layout in layouts.items():
        if f"backbone.{name.removeprefix('backbone.')}" in STEMS and layout.name in arrays:
            arrays = {**arrays, layout.name: _with_channels(arrays[layout.name], layout.shape[1])}
    check_fit({layout.name: layout.shape for layout in layouts.values()}, arrays, source=source)
    return {name: np.ascontiguousarray(layout.read(arrays[layout.name])) for name, layout in layouts.items()}


def _with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The kernel of a first convolution, OIHW, for these channels; as it is, if it cannot be converted."""
    if kernel.ndim != 4 or not can_convert(kernel.shape[1], channels):
        return kernel
    return convert_kernel(kernel, channels, axis=1)


def write_model(arrays: Mapping[str, np.ndarray], layouts: Mapping[str, Layout]) -> dict[str, np.ndarray]:
    """Another system's arrays, by its names, from ours."""
    return {
        layout.name: np.ascontiguousarray(layout.write(np.asarray(arrays[name])))
        for name, layout in layouts.items()
    }


def shapes_of(blueprint: Blueprint) -> dict[str, Shape]:
    """The shape of each of our arrays."""
    return {name: tuple(shape.shape) for name, shape in blueprint.shapes().items()}
