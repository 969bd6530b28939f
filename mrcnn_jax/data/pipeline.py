"""Builds training batches from a ``DataSource`` with tf.data."""

import weakref
from collections.abc import Callable, Iterator

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.augment import example_generator, jitter_colours, random_transform
from mrcnn_jax.data.joined import data_sets
from mrcnn_jax.data.order import BatchOrder
from mrcnn_jax.data.selection import repeats_of_images, sets_of_images, trained_images
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.data.tensorflow import tf
from mrcnn_jax.data.transform import transform_objects, transform_pixels, transform_proposals
from mrcnn_jax.proposals import DataProposals
from mrcnn_jax.types import Batch, GroundTruth, Proposals

_BATCH_FIELDS = ("images", "image_sizes", "ids")
_PROPOSAL_FIELDS = {"proposals.boxes": "boxes", "proposals.scores": "scores", "proposals.valid": "valid"}
_TYPES = {
    "images": np.uint8, "image_sizes": np.int32, "ids": np.int64, "boxes": np.float32, "labels": np.int32,
    "crowd": np.bool_, "valid": np.bool_, "masks": np.uint8, "mask_boxes": np.float32,
    "keypoints": np.float32,
    "proposals.boxes": np.float32, "proposals.scores": np.float32, "proposals.valid": np.bool_,
}  # fmt: skip
_PREFETCH = 2  # batches


def training_batches(
    source: DataSource,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    masks: bool,
    keypoints: bool,
    proposals: DataProposals | None = None,
    num_proposals: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """An endless iterator over the batches of steps ``start_step``, ``start_step + 1``, ..., in NumPy arrays.

    A batch is a function of ``source``, ``config``, ``batch_size``, ``seed`` and the step alone. Images
    without objects, or with crowds only, are skipped unless ``config.keep_empty``; see ``trained_images``.

    Args:
        source: The training images and their objects.
        config: Sizes, canvases and augmentation.
        batch_size: Images per step, over all processes.
        seed: Seed of the image order and the augmentation.
        start_step: The first step.
        masks: Whether to fill in ``gt.masks``.
        keypoints: Whether to fill in ``gt.keypoints``.
        proposals: The images' proposals, to fill in ``proposals`` with; None: not filled in.
        num_proposals: Rows of proposals per image, with the best.
        process_index: The process whose share of each batch to load ...
        process_count: ... out of this many equal, contiguous shares.

    Raises:
        ValueError: immediately, if no image is left to train on, or if ``masks`` or ``keypoints`` is set but
            the data has none; on iteration, naming the file, if an image cannot be read or its size differs
            from its annotation.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch size ({batch_size}) must be divisible by the number of processes ({process_count})"
        )
    if keypoints and not source.categories.keypoint_names:
        raise ValueError(
            f"{source.name}: no category has keypoints; set model.keypoint to False to train without"
        )
    order, kept, canvases = plan_batches(
        source, config, batch_size=batch_size, seed=seed, keypoints=keypoints
    )
    if masks and not source.has_masks:
        raise ValueError(
            f"{source.name}: no object has a segmentation; set model.mask to False to train without masks"
        )
    share = batch_size // process_count

    def load(position: int) -> dict[str, np.ndarray]:
        """The example at a position in this process's sequence, which has ``share`` examples per step."""
        step, row = divmod(position, share)
        canvas, indices, numbers = order.batch(step)
        row += process_index * share
        return load_example(
            source,
            int(kept[indices[row]]),
            config,
            generator=example_generator(seed, int(numbers[row])),
            canvas=canvases[canvas],
            masks=masks,
            keypoints=keypoints,
            proposals=proposals,
            num_proposals=num_proposals,
        )

    types = field_types(config, masks=masks, keypoints=keypoints, proposals=proposals is not None)
    return iterate_batches(load, types, first=start_step * share, batch=share)


def plan_batches(
    source: DataSource, config: DataConfig, *, batch_size: int, seed: int, keypoints: bool
) -> tuple[BatchOrder, np.ndarray, list[images.Size]]:
    """The batch order, the source indices ``[N]`` of the images it numbers 0 to N - 1, and its canvases.

    Raises ValueError if no image is left to train on.
    """
    trained = trained_images(source, config, keypoints=keypoints)
    kept = np.flatnonzero(trained)
    if not len(kept) and (source.learnable | config.keep_empty).any():
        raise ValueError(
            f"{source.name}: none of its {len(source.ids)} images has the {config.min_keypoints} visible "
            "keypoints of data.min_keypoints"
        )
    if not len(kept):
        crowds = 0 if source.counts is None else source.counts[:, 1].sum()
        reason = (
            f"all {crowds} are crowds; data.crowds_are_objects trains on them as objects"
            if crowds
            else "images without objects are left out unless data.keep_empty is set"
        )
        raise ValueError(
            f"{source.name}: none of its {len(source.ids)} images has an object to train on; {reason}"
        )
    shapes, shape_of_image = np.unique(source.sizes[kept], axis=0, return_inverse=True)
    canvas_of_shape = [training_canvas(tuple(shape), config) for shape in shapes.tolist()]
    canvases = sorted(set(canvas_of_shape))
    canvas_of_image = np.array([canvases.index(canvas) for canvas in canvas_of_shape])[shape_of_image]
    sets = sets_of_images(source, config)[kept]
    if config.train_shares:
        for number, (name, _) in enumerate(data_sets(source)):
            if number not in sets:
                raise ValueError(
                    f"{name}: none of its images is trained on, but it has a share in data.train_shares"
                )
    order = BatchOrder(
        canvas_of_image,
        batch_size=batch_size,
        seed=seed,
        set_of_image=sets,
        shares=config.train_shares,
        repeats=repeats_of_images(source, config, trained),
    )
    return order, kept, canvases


def training_canvas(size: images.Size, config: DataConfig) -> images.Size:
    """The canvas of an image, chosen at its largest training size and used at all of them."""
    if config.scale_jitter:
        return config.canvases[0]
    return images.fitted_shape(
        *size,
        short_side=max(config.train_short_sides),
        long_side=config.long_side,
        canvases=config.canvases,
        rule=config.resize,
    )[1]


def pixel_rule(config: DataConfig) -> str:
    """The ``rule`` with which ``images.resize`` resizes training images.

    For large-scale jitter both reference systems resize with Pillow: it shrinks images several times over,
    which without Pillow's antialiasing would produce severe artefacts.
    """
    return "detectron2" if config.scale_jitter else config.resize


def field_types(config: DataConfig, *, masks: bool, keypoints: bool, proposals: bool) -> dict[str, type]:
    """The fields of an example, as ``load_example`` gives them with these settings, and their types."""
    absent = {"masks": not masks, "mask_boxes": not masks, "keypoints": not keypoints}
    absent |= dict.fromkeys(_PROPOSAL_FIELDS, not proposals)
    types = {field: kind for field, kind in _TYPES.items() if not absent.get(field)}
    if pixel_rule(config) == "torchvision":
        types["images"] = np.float32
    return types


def load_example(
    source: DataSource,
    index: int,
    config: DataConfig,
    *,
    generator: np.random.Generator,
    canvas: images.Size,
    masks: bool,
    keypoints: bool,
    proposals: DataProposals | None = None,
    num_proposals: int = 0,
) -> dict[str, np.ndarray]:
    """One row of a batch, by field."""
    picture = source.read(index)
    original = picture.pixels.shape[0], picture.pixels.shape[1]
    transform = random_transform(generator, original, canvas, config)
    pixels = jitter_colours(picture.pixels, generator) if config.colour_jitter else picture.pixels
    given = {}
    if proposals is not None:
        given = transform_proposals(proposals[index], transform, count=num_proposals)
    return {
        **{field: given[name] for field, name in _PROPOSAL_FIELDS.items() if given},
        "images": transform_pixels(pixels, transform, canvas=canvas, rule=pixel_rule(config)),
        "image_sizes": np.array(transform.size, np.int32),
        "ids": np.array(source.ids[index], np.int64),
        **transform_objects(
            picture.objects,
            transform,
            max_objects=config.max_objects,
            mask_grid=config.mask_grid if masks else None,
            keypoints=keypoints,
            flip_pairs=source.categories.flip_pairs,
            keypoint_offset=config.keypoint_offset,
        ),
    }


def iterate_batches(
    load: Callable[[int], dict[str, np.ndarray]],
    types: dict[str, type],
    *,
    first: int = 0,
    end: int = np.iinfo(np.int64).max,
    batch: int,
) -> Iterator[Batch]:
    """Batches of the examples ``load(first)`` to ``load(end - 1)``, loaded in parallel and ahead."""
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
        tf.data.Dataset.range(first, end)
        .map(load_tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch)
        .prefetch(_PREFETCH)
    )
    # If the iterator outlived the interpreter, TensorFlow's threads would wait for it forever. finalize drops
    # it at exit, before that.
    arrays = [batches.as_numpy_iterator()]
    generator = _generate(arrays, list(types), failures)
    weakref.finalize(generator, arrays.clear)
    return generator


def _generate(arrays: list, fields: list[str], failures: dict[int, Exception]) -> Iterator[Batch]:
    """The batches of the one iterator in ``arrays``; raises the error of the first example that failed."""
    while True:
        try:
            values = next(arrays[0])
        except StopIteration:
            return
        except tf.errors.OpError:
            # TensorFlow buries the original error in a dump of its graph.
            if failures:
                raise failures[min(failures)] from None
            raise
        others = (*_BATCH_FIELDS, *_PROPOSAL_FIELDS)
        objects = {field: values[field] for field in fields if field not in others}
        given = {name: values[field] for field, name in _PROPOSAL_FIELDS.items() if field in values}
        yield Batch(
            **{field: values[field] for field in _BATCH_FIELDS},
            gt=GroundTruth(**objects),
            proposals=Proposals(**given) if given else None,
        )
