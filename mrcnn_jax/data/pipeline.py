"""Builds training batches from a ``DataSource`` with tf.data."""

import weakref
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.affine import PointMap, rotated_size
from mrcnn_jax.data.augment import (
    crop_sizes,
    example_generator,
    jitter_colours,
    random_transform,
    sizes_before_crop,
)
from mrcnn_jax.data.augmented import Colour, Extras, SceneLoader, needs_scene
from mrcnn_jax.data.joined import data_sets
from mrcnn_jax.data.order import BatchOrder
from mrcnn_jax.data.own_augment import Augment
from mrcnn_jax.data.selection import frequencies, repeats_of_images, sets_of_images, trained_images
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.data.tensorflow import tf
from mrcnn_jax.data.transform import (
    transform_objects,
    transform_pixels,
    transform_points,
    transform_proposals,
)
from mrcnn_jax.pixels import RGB, PixelFormat
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
    augment: Augment | None = None,
    fill: Colour | None = None,
    pixels: PixelFormat = RGB,
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
        process_index: The process, or group of processes that load the same images, whose share of each batch
            to load ...
        process_count: ... out of this many equal, contiguous shares.
        augment: A function of one's own that changes each image and its objects (``data.own_augment``).
        fill: The colour of erased rectangles, and outside of turned and pasted images (``mean_colour``);
            None: ImageNet's mean.
        pixels: What the images of ``source`` are.

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
    if augment is not None and proposals is not None:
        raise ValueError("augment must be None with proposals: it would move the objects away from them")
    if needs_scene(config, augment) and len(source.ids):
        source.annotations(0)  # those of records are read as a whole: once, before the threads begin
    share = batch_size // process_count
    trained = trained_images(source, config, keypoints=keypoints)
    often = np.cumsum(frequencies(source, config, trained))

    def choose_other(generator: np.random.Generator) -> int:
        return int(kept[np.searchsorted(often, generator.random() * often[-1], side="right")])

    extras = Extras(augment, choose_other=choose_other, **({} if fill is None else {"fill": fill}))

    def load(position: int) -> dict[str, np.ndarray]:
        """The example at a position in this process's sequence, which has ``share`` examples per step."""
        step, row = divmod(position, share)
        canvas, indices, numbers = order.batch(step)
        row += process_index * share
        place = int(indices[row])
        return load_example(
            source,
            int(kept[place]),
            config,
            generator=example_generator(seed, int(numbers[row])),
            canvas=canvases[canvas],
            masks=masks,
            keypoints=keypoints,
            proposals=proposals,
            num_proposals=num_proposals,
            turned=config.quarter_turns and place >= len(kept) // 2,
            extras=extras,
            pixels=pixels,
        )

    types = field_types(
        config, masks=masks, keypoints=keypoints, proposals=proposals is not None, pixels=pixels
    )
    return iterate_batches(load, types, first=start_step * share, batch=share)


def plan_batches(
    source: DataSource, config: DataConfig, *, batch_size: int, seed: int, keypoints: bool
) -> tuple[BatchOrder, np.ndarray, list[images.Size]]:
    """The batch order, the source indices ``[N]`` of the images it numbers 0 to N - 1, and its canvases.

    With ``config.quarter_turns`` each image is there twice: in the second half of the N it is turned by 90 or
    270 degrees, and may so be on another canvas. Raises ValueError if no image is left to train on.
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
    turned = np.repeat([False, True], len(kept)) if config.quarter_turns else np.zeros(len(kept), bool)
    repeats = repeats_of_images(source, config, trained)
    if config.quarter_turns:
        kept = np.concatenate([kept, kept])
        repeats = None if repeats is None else np.concatenate([repeats, repeats])
    rows = np.column_stack([source.sizes[kept], turned])
    shapes, shape_of_image = np.unique(rows, axis=0, return_inverse=True)
    canvas_of_shape = [
        training_canvas((height, width), config, turned=bool(turn)) for height, width, turn in shapes.tolist()
    ]
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
        repeats=repeats,
    )
    return order, kept, canvases


def training_canvas(size: images.Size, config: DataConfig, *, turned: bool = False) -> images.Size:
    """The canvas of an image, chosen at its largest training size and used at all of them.

    If parts are cut out or images are turned by an angle, it holds all that may come of the image. ``turned``
    says that the image is first turned by 90 degrees.
    """
    if config.scale_jitter:
        return config.canvases[0]
    extremes = [size] if config.crop_share < 1 else []
    for before in sizes_before_crop(size, config):
        heights, widths = crop_sizes(before, config)
        extremes += [(heights[1], widths[0]), (heights[0], widths[1])]  # the highest part, and the widest
    shapes = [rotated_size(shape, angle) for shape in extremes for angle in (0, config.rotation)]
    resized = np.array(
        [
            images.resized_shape(
                *(shape[::-1] if turned else shape),
                short_side=max(config.train_short_sides),
                long_side=config.train_long_side or config.long_side,
                rule=config.resize,
            )
            for shape in shapes
        ]
    )
    height, width = resized.max(axis=0).tolist()
    return images.choose_canvas((height, width), config.canvases)


def pixel_rule(config: DataConfig) -> str:
    """The ``rule`` with which ``images.resize`` resizes training images.

    For large-scale jitter both reference systems resize with Pillow: it shrinks images several times over,
    which without Pillow's antialiasing would produce severe artefacts.
    """
    return "detectron2" if config.scale_jitter else config.resize


def field_types(
    config: DataConfig, *, masks: bool, keypoints: bool, proposals: bool, pixels: PixelFormat = RGB
) -> dict[str, type]:
    """The fields of an example, as ``load_example`` gives them with these settings, and their types."""
    absent = {"masks": not masks, "mask_boxes": not masks, "keypoints": not keypoints}
    absent |= dict.fromkeys(_PROPOSAL_FIELDS, not proposals)
    types = {field: kind for field, kind in _TYPES.items() if not absent.get(field)}
    if pixel_rule(config) == "torchvision" or pixels.dtype == "float32":
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
    turned: bool = False,
    extras: Extras | None = None,
    pixels: PixelFormat = RGB,
) -> dict[str, np.ndarray]:
    """One row of a batch, by field; ``turned`` as in ``random_transform``."""
    extras, rule = extras or Extras(), pixel_rule(config)
    points: PointMap
    if needs_scene(config, extras.augment):
        loader = SceneLoader(source, config, extras, rule=rule, masks=masks, keypoints=keypoints)
        image, size, rows, points = loader.load(index, generator=generator, canvas=canvas, turned=turned)
    else:
        picture = source.read(index)
        original = picture.pixels.shape[0], picture.pixels.shape[1]
        transform = random_transform(generator, original, canvas, config, turned=turned)
        image = jitter_colours(picture.pixels, generator) if config.colour_jitter else picture.pixels
        image, size = transform_pixels(image, transform, canvas=canvas, rule=rule), transform.size
        rows = transform_objects(
            picture.objects,
            transform,
            max_objects=config.max_objects,
            mask_grid=config.mask_grid if masks else None,
            keypoints=keypoints,
            flip_pairs=source.categories.flip_pairs,
            keypoint_offset=config.keypoint_offset,
        )
        points = partial(transform_points, transform=transform)
    if image.shape[2] != pixels.channels:
        raise ValueError(
            f"{source.name}: image {source.ids[index]} has {image.shape[2]} channels; must have as many as "
            f"model.pixel_mean has values, {pixels.channels}"
        )
    given = {}
    if proposals is not None:
        given = transform_proposals(proposals[index], points, size=size, count=num_proposals)
    return {
        **{field: given[name] for field, name in _PROPOSAL_FIELDS.items() if given},
        "images": image,
        "image_sizes": np.array(size, np.int32),
        "ids": np.array(source.ids[index], np.int64),
        **rows,
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
