"""A function of one's own that changes training images and their objects.

It is given to ``mrcnn_jax.train(augment=...)`` or named by ``mrcnn-jax train --augment=FILE.py:FUNCTION``,
and is no part of a config: the configs of strangers must not run code.

Shapes: N objects, H x W pixels, K keypoints.
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrcnn_jax.data.coco import CocoAnnotation, clip_box
from mrcnn_jax.data.rasterise import pixels_of
from mrcnn_jax.data.scene import Scene, mask_window
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories


@dataclass(frozen=True, eq=False)
class Example:
    """An image and its objects, in pixels of the image, before it is resized; arrays may be changed in place.

    An object without a mask has one that is all False; without keypoints, all of visibility 0.
    """

    image: np.ndarray  # [H W C], by default RGB uint8
    boxes: np.ndarray  # [N 4] float32: x1 y1 x2 y2
    masks: np.ndarray  # [N H W] bool
    keypoints: np.ndarray  # [N K 3] float32: x, y, visibility (0 absent, 1 hidden, 2 visible)
    labels: np.ndarray  # [N] int32, from 1
    crowd: np.ndarray  # [N] bool: a group of objects, neither learnt nor background


_MODULE = "augment_of_the_command_line"  # no name of a file, which might be that of a library
_KINDS = {"numbers": "fiu", "integers": "iu", "bool": "b"}  # of NumPy's types

# Returns the changed example, perhaps with other objects or of another size. All randomness has to come from
# the generator, which is a function of the run's seed and the image's place in training.
Augment = Callable[[Example, np.random.Generator], Example]


def load_augment(text: str) -> Augment:
    """The function that ``text``, such as ``augment.py:flip_colours``, names: a Python file and its function.

    The file is run. Raises ValueError, or what the file itself raises, if it does not have the function.
    """
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise ValueError(f"--augment={text}: must be a Python file and a function in it, FILE.py:FUNCTION")
    if not Path(path).is_file():
        raise ValueError(f"--augment={text}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--augment={text}: {path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--augment={text}: {path} has no function {name}")
    return function


def apply_augment(
    augment: Augment, scene: Scene, generator: np.random.Generator, categories: Categories, *, where: str
) -> Scene:
    """The scene that ``augment`` makes of this one.

    Boxes are cut to the image; objects are dropped if nothing is left of their box. Raises ValueError, with
    ``where`` and the function, listing all fields that are not as ``Example`` describes them.
    """
    example = augment(_to_example(scene, len(categories.keypoint_names)), generator)
    if problems := list(_problems(example, categories, scene.pixels)):
        name = getattr(augment, "__name__", type(augment).__name__)
        raise ValueError(f"{where}: what the function {name} makes of it: {'; '.join(problems)}")
    size = example.image.shape[0], example.image.shape[1]
    items = []
    for row, values in enumerate(example.boxes.astype(np.float64).tolist()):
        if (box := clip_box((values[0], values[1], values[2], values[3]), size)) is None:
            continue
        mask, label = example.masks[row], int(example.labels[row])
        items.append(
            CocoAnnotation(
                id=row,
                label=label,
                box=box,
                crowd=bool(example.crowd[row]),
                segmentation=Rle.from_bitmap(mask) if mask.any() else None,
                keypoints=example.keypoints[row].astype(np.float32)
                if label in categories.keypoint_labels
                else None,
            )
        )
    return Scene(example.image, tuple(items))


def _to_example(scene: Scene, num_keypoints: int) -> Example:
    count = len(scene.items)
    masks = np.zeros((count, *scene.size), bool)
    keypoints = np.zeros((count, num_keypoints, 3), np.float32)
    for row, item in enumerate(scene.items):
        if item.segmentation is not None:
            window = mask_window(item, scene.size)
            masks[row, window.rows, window.columns] = pixels_of(item.segmentation, *window)
        if item.keypoints is not None:
            keypoints[row] = item.keypoints
    return Example(
        image=scene.pixels.copy(),
        boxes=np.array([item.box for item in scene.items], np.float32).reshape(count, 4),
        masks=masks,
        keypoints=keypoints,
        labels=np.array([item.label for item in scene.items], np.int32),
        crowd=np.array([item.crowd for item in scene.items], bool),
    )


def _problems(example: object, categories: Categories, given: np.ndarray) -> Iterator[str]:
    """What is wrong with an example that a function made: the field, its value and the rule.

    Its image must have the channels and the type of the image that was ``given`` to the function.
    """
    if not isinstance(example, Example):
        yield f"it must be an Example, got {type(example).__name__}"
        return
    values = {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}
    if others := [name for name, value in values.items() if not isinstance(value, np.ndarray)]:
        yield from (f"{name} must be a NumPy array, got {type(values[name]).__name__}" for name in others)
        return
    image = example.image
    channels = given.shape[2]
    if image.dtype != given.dtype or image.ndim != 3 or image.shape[2] != channels or not image.size:
        yield f"image must be {given.dtype} [H W {channels}], got {image.dtype} {list(image.shape)}"
        return
    count, size, points = example.labels.size, image.shape[:2], len(categories.keypoint_names)
    shapes = {
        "boxes": ("numbers", (count, 4)),
        "masks": ("bool", (count, *size)),
        "keypoints": ("numbers", (count, points, 3)),
        "labels": ("integers", (count,)),
        "crowd": ("bool", (count,)),
    }
    problems = [
        f"{name} must be {kind} {list(shape)} for {count} labels and an image of {size[0]}x{size[1]}, got "
        f"{values[name].dtype} {list(values[name].shape)}"
        for name, (kind, shape) in shapes.items()
        if values[name].dtype.kind not in _KINDS[kind] or values[name].shape != shape
    ]
    yield from problems
    if problems:
        return
    boxes, keypoints, labels = example.boxes, example.keypoints, example.labels
    if wrong := boxes[
        ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1))
    ].tolist():
        yield f"boxes must be finite with x1 <= x2 and y1 <= y2, got {wrong[0]}"
    if wrong := labels[(labels < 1) | (labels > len(categories))].tolist():
        yield f"labels must be from 1 to {len(categories)}, got {wrong[0]}"
    if not np.isfinite(keypoints).all():
        yield "keypoints must be finite"
    elif wrong := keypoints[..., 2][~np.isin(keypoints[..., 2], (0, 1, 2))].tolist():
        yield f"keypoints must have visibility 0, 1 or 2, got {wrong[0]:g}"
