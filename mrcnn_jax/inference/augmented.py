"""Test-time augmentation: detects in several views of an image and merges what was found.

As in Detectron2's ``GeneralizedRCNNWithTTA`` (paper, appendix B): every view's detections are selected as
those of a single image are, brought into one frame, and suppressed together. Then every view gives masks
and keypoint heatmaps for the merged boxes; mask probabilities and keypoint logits are averaged over the
views, and keypoints decoded from the mean. Each view's features are computed twice: keeping those of all
views would take about 2 GB per image for an R50-FPN with Detectron2's 18 views (an estimate).

The frame is the image as it is resized without augmentation (``views.plain_scale``).

Shapes: B images, V views, D detections, M x M cells of a mask or heatmap, K keypoints.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import batch_sharding, map_images, replicated
from mrcnn_jax.inference.predict import detect_boxes
from mrcnn_jax.inference.views import canvases_of, views_of
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.ops.boxes import clip_boxes, is_nonempty
from mrcnn_jax.ops.keypoints import decode_keypoints
from mrcnn_jax.ops.nms import nms
from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options
from mrcnn_jax.types import Detections

# Takes a model's folded arrays, the views in the order of ``views_of`` (images [B H W C] and their sizes
# without padding [B 2]), the images' sizes in the frame [B 2], and the order of keypoints in a mirrored image
# [K]. Returns detections in the frame, without waiting for the device.
AugmentedFn = Callable[
    [Mapping[str, Array], Iterable[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray], Detections
]


def make_augmented_fn(blueprint: Blueprint, config: Config, mesh: Mesh) -> AugmentedFn:
    """The function that detects in the views of a batch, split over ``mesh``.

    Two programs are compiled for each of ``views.canvases_of``, and two small ones for all of them.
    """
    flips = [view.flipped for view in views_of(config)]
    canvases = canvases_of(config)
    detect, describe = jit_detect(blueprint, config, mesh), jit_describe(blueprint, config, mesh)
    detecting = CompilationTracker("inference of boxes", canvases)
    describing = CompilationTracker("inference of given boxes' masks and keypoints", canvases)
    merge = jax.jit(partial(_merge_batch, flips=flips, config=config))
    average = jax.jit(partial(_average, views=len(flips), config=config))
    has_more = config.model.mask or config.model.keypoint
    sharding = batch_sharding(mesh)

    def run(
        arrays: Mapping[str, Array],
        views: Iterable[tuple[np.ndarray, np.ndarray]],
        frames: np.ndarray,
        keypoint_order: np.ndarray,
    ) -> Detections:
        placed, found = [], []
        frames = jax.device_put(frames, sharding.image_sizes)
        with jax.set_mesh(mesh):
            for images, sizes in views:
                compiles = detecting.record(images, {"images": images, "image_sizes": sizes})
                placed.append(jax.device_put((images, sizes), (sharding.images, sharding.image_sizes)))
                with detecting.announced(images, compiles):
                    found.append(detect(arrays, *placed[-1]))
            merged = merge(found, [sizes for _, sizes in placed], frames)
            if not has_more:
                return merged
            total: Any = None
            for (images, sizes), flipped in zip(placed, flips, strict=True):
                compiles = describing.record(images, {"images": images, "image_sizes": sizes})
                with describing.announced(images, compiles):
                    described = describe(
                        arrays, images, sizes, np.bool_(flipped), frames, merged, keypoint_order
                    )
                total = described if total is None else _add(total, described)
            return average(merged, total)

    return run


def jit_detect(blueprint: Blueprint, config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted program from a view's images and sizes to its detections, without masks and keypoints."""
    folded, sharding = blueprint.folded(), batch_sharding(mesh)

    def detect(arrays: Mapping[str, Array], images: Array, image_sizes: Array) -> Detections:
        return detect_boxes(folded.build(arrays), images, image_sizes, config)[1]

    return jax.jit(
        detect,
        in_shardings=(replicated(mesh), sharding.images, sharding.image_sizes),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )


def jit_describe(blueprint: Blueprint, config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """``describe`` jitted for ``mesh``, of arrays for ``blueprint.folded()`` in place of the model."""
    folded, sharding = blueprint.folded(), batch_sharding(mesh)
    everywhere: Any = replicated(mesh)
    by_image = sharding.image_sizes

    def describe_batch(arrays: Mapping[str, Array], *inputs: Any) -> Any:
        return describe(folded.build(arrays), *inputs)

    return jax.jit(
        describe_batch,
        in_shardings=(everywhere, sharding.images, by_image, everywhere, by_image, by_image, everywhere),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )


def merge_views(
    found: Detections,
    image_sizes: Int[Array, "v 2"],
    frame: Int[Array, "2"],
    *,
    flips: Sequence[bool],
    iou_threshold: float,
    max_outputs: int,
) -> Detections:
    """The best detections of one image from those in all its views (``found.boxes [V D 4]``), in the frame.

    NMS is applied per category. Equal scores: the earlier view first.
    """
    to_frame = jax.vmap(partial(_between, into_view=False), in_axes=(0, 0, None, 0))
    boxes = to_frame(found.boxes, image_sizes, frame, jnp.array(flips)).reshape(-1, 4)
    boxes = clip_boxes(boxes, frame)
    scores, labels, valid = (x.reshape(-1) for x in (found.scores, found.labels, found.valid))
    index, kept = nms(
        boxes, scores, valid, iou_threshold=iou_threshold, max_outputs=max_outputs, classes=labels
    )
    boxes = boxes[index]
    valid = kept & is_nonempty(boxes)
    return Detections(
        boxes=jnp.where(valid[:, None], boxes, 0.0),
        scores=jnp.where(valid, scores[index], 0.0),
        labels=jnp.where(valid, labels[index], 0),
        valid=valid,
    )


def describe(
    model: MaskRCNN,
    images: Array,
    image_sizes: Int[Array, "b 2"],
    flipped: Bool[Array, ""],
    frames: Int[Array, "b 2"],
    merged: Detections,
    keypoint_order: Int[Array, " k"],
) -> dict[str, Array]:
    """What a view shows of the merged boxes, mirrored back; rows that are not valid are undefined.

    ``masks [B D M M]`` are probabilities, ``keypoint_logits [B D M M K]`` heatmaps. Only the model's heads
    have an entry.
    """
    boxes = jax.vmap(partial(_between, into_view=True), in_axes=(0, 0, 0, None))(
        merged.boxes, image_sizes, frames, flipped
    )
    features = model.region_features(model.features(images, image_sizes))
    described = {}
    if model.mask_head is not None:
        masks = model.mask_probabilities(features, boxes, merged.labels, merged.valid)
        described["masks"] = jnp.where(flipped, masks[..., ::-1], masks)
    if model.keypoint_head is not None:
        logits = model.keypoint_logits(features, boxes, merged.valid)
        mirrored = logits[..., ::-1, :][..., keypoint_order]
        described["keypoint_logits"] = jnp.where(flipped, mirrored, logits)
    return described


def _between(
    boxes: Float[Array, "d 4"],
    image_size: Int[Array, "2"],
    frame: Int[Array, "2"],
    flipped: Bool[Array, ""],
    *,
    into_view: bool,
) -> Float[Array, "d 4"]:
    """The boxes of a view of ``image_size`` in the frame, or those of the frame in the view."""
    before, after = (frame, image_size) if into_view else (image_size, frame)
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    width = before[1].astype(boxes.dtype)
    mirrored = jnp.stack([width - x2, y1, width - x1, y2], axis=-1)
    factor = (after / before)[::-1].astype(boxes.dtype)
    return jnp.where(flipped, mirrored, boxes) * jnp.tile(factor, 2)


def _merge_batch(
    found: list[Detections],
    image_sizes: list[Array],
    frames: Array,
    *,
    flips: Sequence[bool],
    config: Config,
) -> Detections:
    """``merge_views`` of every image, from one batch of detections per view."""
    stacked, sizes = jax.tree.map(
        lambda *views: jnp.stack(views, axis=1), *zip(found, image_sizes, strict=True)
    )
    test = config.test
    merge = partial(merge_views, flips=flips, iou_threshold=test.nms_iou, max_outputs=test.detections)
    return map_images(merge, stacked, sizes, frames)


@partial(jax.jit, donate_argnums=0)
def _add(total: Any, described: Any) -> Any:
    return jax.tree.map(jnp.add, total, described)


def _average(merged: Detections, total: dict[str, Array], *, views: int, config: Config) -> Detections:
    """The merged detections with masks and keypoints from the sums over all views."""
    mean = jax.tree.map(lambda x: x / views, total)
    if "masks" in mean:
        merged = replace(merged, masks=mean["masks"])
    if "keypoint_logits" in mean:
        decode = partial(decode_keypoints, score=config.test.keypoint_score)
        keypoints = map_images(decode, mean["keypoint_logits"], merged.boxes, merged.valid)
        merged = replace(merged, keypoints=keypoints)
    return merged
