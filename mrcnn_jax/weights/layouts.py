"""How an array of ours is laid out in another system, and whole models carried over.

A layout undoes itself exactly: arrays are transposed, reordered and cut, never computed with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.runs.checkpoint import check_arrays_match

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """One array of ours in another system, where it has another name and another order of axes."""

    name: str  # there
    shape: Shape  # there
    read: Callable[[np.ndarray], np.ndarray]  # from there to ours
    write: Callable[[np.ndarray], np.ndarray]  # from ours to there


def plain(name: str, shape: Shape) -> Layout:
    """The same array under another name."""
    return Layout(name, shape, read=lambda x: x, write=lambda x: x)


def transposed(name: str, shape: Shape, axes: tuple[int, ...]) -> Layout:
    """An array whose axes there are our ``axes``."""
    there = tuple(shape[axis] for axis in axes)
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(name, there, read=lambda x: x.transpose(back), write=lambda x: x.transpose(axes))


def conv(name: str, shape: Shape) -> Layout:
    """A convolution's kernel, rows columns in out, in torch's order: out in rows columns."""
    return transposed(name, shape, (3, 2, 0, 1))


def deconv(name: str, shape: Shape) -> Layout:
    """A deconvolution's kernel, rows columns in out, in torch's order: in out rows columns."""
    return transposed(name, shape, (2, 3, 0, 1))


def linear(name: str, shape: Shape) -> Layout:
    """A fully connected layer's kernel, in out, in torch's order: out in."""
    return transposed(name, shape, (1, 0))


def linear_of_map(name: str, shape: Shape, *, channels: int) -> Layout:
    """That of a layer that sees a map, which is flattened channels last here and channels first there."""
    inputs, outputs = shape
    side = round((inputs / channels) ** 0.5)
    ours, there = (side, side, channels, outputs), (outputs, channels, side, side)
    return Layout(
        name,
        (outputs, inputs),
        read=lambda x: x.reshape(there).transpose(2, 3, 1, 0).reshape(shape),
        write=lambda x: x.reshape(ours).transpose(3, 2, 0, 1).reshape(outputs, inputs),
    )


def with_background(layout: Layout, rows: int) -> Layout:
    """With ``rows`` more at the front of the first axis there: the background's, which nothing reads.

    They are dropped on reading and zero on writing.
    """
    return Layout(
        layout.name,
        (layout.shape[0] + rows, *layout.shape[1:]),
        read=lambda x: layout.read(x[rows:]),
        write=lambda x: np.pad(layout.write(x), [(rows, 0)] + [(0, 0)] * (len(layout.shape) - 1)),
    )


def background_last(layout: Layout) -> Layout:
    """With the first row, the background's, as the last one there."""
    return Layout(
        layout.name,
        layout.shape,
        read=lambda x: layout.read(np.roll(x, 1, axis=0)),
        write=lambda x: np.roll(layout.write(x), -1, axis=0),
    )


class _OfShape:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def read_model(
    arrays: Mapping[str, np.ndarray], layouts: Mapping[str, Layout], *, source: str
) -> dict[str, np.ndarray]:
    """Our arrays, by our names, from another system's.

    Raises ValueError with everything in ``arrays`` that is missing, unexpected or of another shape, under
    the names that it has there; ``source`` says where they are from.
    """
    wanted = {layout.name: _OfShape(layout.shape) for layout in layouts.values()}
    check_arrays_match(wanted, arrays, source=source)
    return {name: np.ascontiguousarray(layout.read(arrays[layout.name])) for name, layout in layouts.items()}


def write_model(arrays: Mapping[str, np.ndarray], layouts: Mapping[str, Layout]) -> dict[str, np.ndarray]:
    """Another system's arrays, by its names, from ours."""
    return {
        layout.name: np.ascontiguousarray(layout.write(np.asarray(arrays[name])))
        for name, layout in layouts.items()
    }


def shapes_of(blueprint: Blueprint) -> dict[str, Shape]:
    """The shape of every array of ours."""
    return {name: tuple(shape.shape) for name, shape in blueprint.shapes().items()}
