"""Training batches from COCO files with tf.data (the only module that imports TensorFlow)."""

import os
import weakref
from collections.abc import Callable, Iterator

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.augment import Augmentation, draw_augmentation
from mrcnn_jax.data.coco import CocoDataset, CocoImage
from mrcnn_jax.data.ground_truth import annotations_to_arrays, has_objects
from mrcnn_jax.data.order import BatchOrder
from mrcnn_jax.types import Batch, GroundTruth

# No start-up notices. oneDNN's comes at any log level while oneDNN is on, and tf.data does not use it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
import tensorflow as tf

tf.config.set_visible_devices([], "GPU")  # the accelerators are JAX's

_BATCH_FIELDS = ("images", "image_sizes", "ids")
_TYPES = {
    "images": np.uint8, "image_sizes": np.int32, "ids": np.int64, "boxes": np.float32, "labels": np.int32,
    "crowd": np.bool_, "valid": np.bool_, "masks": np.uint8, "keypoints": np.float32,
}  # fmt: skip
_PREFETCH = 2  # batches


def training_batches(
    dataset: CocoDataset,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    masks: bool,
    keypoints: bool,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """The endless batches of steps ``start_step``, ``start_step + 1``, ..., as NumPy arrays.

    The batch of a step is a function of data set, ``config``, ``batch_size``, ``seed`` and the step alone.
    Images without objects, or with crowds only, are left out unless ``config.keep_empty``.

    Args:
        dataset: As read by ``read_coco``.
        config: Sizes, canvases and augmentation.
        batch_size: Images of a step over all processes.
        seed: Of the order and of the augmentation.
        start_step: The first step.
        masks: Whether ``gt.masks`` is wanted.
        keypoints: Whether ``gt.keypoints`` is wanted.
        process_index: Which share of each batch's rows to load ...
        process_count: ... of this many equal, contiguous shares.

    Raises:
        ValueError: at once, if no image is left or the data set lacks what is wanted; on iteration, naming
            the file, if an image cannot be read or is not of the size that its annotation says.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch size ({batch_size}) must be divisible by the number of processes ({process_count})"
        )
    _check_annotations(dataset, masks=masks, keypoints=keypoints)
    kept = [image for image in dataset.images if config.keep_empty or has_objects(image)]
    if not kept:
        raise ValueError(
            f"{dataset.name}: none of its {len(dataset.images)} images has an object to train on; images "
            "without objects or with crowds only are left out unless data.keep_empty is set"
        )
    canvases = [_training_canvas(image, config) for image in kept]
    used = sorted(set(canvases))
    canvas_of_image = np.array([used.index(canvas) for canvas in canvases])
    order = BatchOrder(canvas_of_image, batch_size=batch_size, seed=seed)
    share = batch_size // process_count

    def load(position: int) -> dict[str, np.ndarray]:
        """The example at a position of this process's sequence, which has ``share`` examples a step."""
        step, row = divmod(position, share)
        canvas, indices, numbers = order.batch(step)
        row += process_index * share
        return _load_example(
            kept[indices[row]],
            dataset,
            config,
            augmentation=draw_augmentation(
                seed, int(numbers[row]), short_sides=config.train_short_sides, flip=config.flip
            ),
            canvas=used[canvas],
            masks=masks,
            keypoints=keypoints,
        )

    absent = {"masks": not masks, "keypoints": not keypoints}
    types = {field: kind for field, kind in _TYPES.items() if not absent.get(field)}
    if config.resize == "torchvision":
        types["images"] = np.float32
    return _iterate(load, types, first=start_step * share, batch=share)


def _check_annotations(dataset: CocoDataset, *, masks: bool, keypoints: bool) -> None:
    """Raises ValueError if masks or keypoints are wanted and the data set has none at all."""
    if keypoints and not dataset.categories.keypoint_names:
        raise ValueError(
            f"{dataset.name}: no category has keypoints; set model.keypoint to False to train without"
        )
    objects = [item for image in dataset.images for item in image.annotations if not item.crowd]
    if masks and objects and all(item.segmentation is None for item in objects):
        raise ValueError(
            f"{dataset.name}: none of its {len(objects)} objects has a segmentation; set model.mask to False "
            "to train without masks"
        )


def _training_canvas(image: CocoImage, config: DataConfig) -> images.Size:
    """The canvas of an image at its largest training size, and so of all of them."""
    return images.fitted_shape(
        image.height,
        image.width,
        short_side=max(config.train_short_sides),
        long_side=config.long_side,
        canvases=config.canvases,
        rule=config.resize,
    )[1]


def _load_example(
    image: CocoImage,
    dataset: CocoDataset,
    config: DataConfig,
    *,
    augmentation: Augmentation,
    canvas: images.Size,
    masks: bool,
    keypoints: bool,
) -> dict[str, np.ndarray]:
    """One row of a batch, by field."""
    pixels = images.read_image(image.path)
    if pixels.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"{image.path}: is {pixels.shape[0]}x{pixels.shape[1]} (height x width, upright), but image "
            f"{image.id} of {dataset.name} is said to be {image.height}x{image.width}"
        )
    fitted = images.fit(
        pixels[:, ::-1] if augmentation.flip else pixels,
        short_side=augmentation.short_side,
        long_side=config.long_side,
        canvases=(canvas,),
        rule=config.resize,
    )
    objects = annotations_to_arrays(
        image,
        dataset.categories,
        size=fitted.size,
        flip=augmentation.flip,
        max_objects=config.max_objects,
        mask_grid=config.mask_grid if masks else None,
        keypoints=keypoints,
        keypoint_offset=config.keypoint_offset,
    )
    return {
        "images": fitted.image,
        "image_sizes": np.array(fitted.size, np.int32),
        "ids": np.array(image.id, np.int64),
        **objects,
    }


def _iterate(
    load: Callable[[int], dict[str, np.ndarray]], types: dict[str, type], *, first: int, batch: int
) -> Iterator[Batch]:
    """Batches of ``load(first)``, ``load(first + 1)``, ..., loaded in parallel and ahead of time."""
    failures: dict[int, Exception] = {}

    def load_fields(position: np.ndarray) -> list[np.ndarray]:
        try:
            example = load(int(position))
        except Exception as error:
            failures[int(position)] = error
            raise
        return [example[field] for field in types]

    def load_tensors(position: tf.Tensor) -> dict[str, tf.Tensor]:
        dtypes = [tf.as_dtype(kind) for kind in types.values()]
        return dict(zip(types, tf.numpy_function(load_fields, [position], dtypes), strict=True))

    batches = (
        tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        .map(load_tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch)
        .prefetch(_PREFETCH)
    )
    # Where an iterator outlives the interpreter, TensorFlow's threads wait for it for ever: finalize drops it
    # before, at exit.
    arrays = [batches.as_numpy_iterator()]
    generator = _generate(arrays, list(types), failures)
    weakref.finalize(generator, arrays.clear)
    return generator


def _generate(arrays: list, fields: list[str], failures: dict[int, Exception]) -> Iterator[Batch]:
    """Batches of the one iterator in ``arrays``; of its failures the one that comes first in the sequence."""
    while True:
        try:
            values = next(arrays[0])
        except tf.errors.OpError:
            # TensorFlow's error wraps ours in a dump of its graph.
            if failures:
                raise failures[min(failures)] from None
            raise
        objects = {field: values[field] for field in fields if field not in _BATCH_FIELDS}
        yield Batch(**{field: values[field] for field in _BATCH_FIELDS}, gt=GroundTruth(**objects))
