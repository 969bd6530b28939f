"""This project's results, under the keys of ``torchvision_peer.py`` and ``detectron2_peer.py``."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco import CocoDataset, read_coco
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.objects import clipped_box
from mrcnn_jax.data.pipeline import load_example, training_canvas
from mrcnn_jax.data.rasterise import rasterise
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.images import fit
from mrcnn_jax.models.canvas import padded_sizes
from mrcnn_jax.models.mask_rcnn import MaskRCNN, normalize
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.training.objective import compute_losses
from mrcnn_jax.training.step import TrainState, make_state, train_step
from mrcnn_jax.training.targets import AnchorTargets, anchor_targets, region_targets
from mrcnn_jax.types import Batch, GroundTruth, Proposals


def read_data(images: Path, annotations: Path, categories: Categories) -> CocoDataset:
    """The dataset with the labels of ``categories``, without crowds.

    Neither reference trains on crowds, and this project handles them differently.
    """
    dataset = read_coco("/", images=str(images.resolve()), annotations=str(annotations.resolve()))
    aligned = AlignedSource(FolderSource(dataset, mask_grid=0), categories)
    return dataclasses.replace(
        dataset,
        categories=aligned.categories,
        images=tuple(
            dataclasses.replace(image, annotations=tuple(a for a in aligned.annotations(i) if not a.crowd))
            for i, image in enumerate(dataset.images)
        ),
    )


def to_device(weights: Mapping[str, np.ndarray]) -> Arrays:
    """The weights as JAX arrays."""
    return {name: jnp.asarray(array) for name, array in weights.items()}


def write_box_frames(dataset: CocoDataset, path: Path, grid: int) -> None:
    """Writes every object's box-frame mask, by annotation id."""
    frames = {}
    for image in dataset.images:
        for annotation in image.annotations:
            box = clipped_box(annotation, image)
            if annotation.segmentation is not None and box is not None:
                frames[str(annotation.id)] = rasterise(annotation.segmentation, box, grid)
    np.savez_compressed(path, **frames)


def make_stages(
    blueprint: Blueprint, config: Config
) -> Callable[[Arrays, np.ndarray, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function from weights, an image and the peer's arrays for it to every stage's output.

    The heads see the peer's proposals and detected boxes. It compiles once per combination of their counts.
    """

    @jax.jit
    def compute(
        weights: Arrays,
        images: jax.Array,
        sizes: jax.Array,
        proposals: jax.Array,
        detected: jax.Array,
        labels: jax.Array,
    ) -> dict:
        model = blueprint.build(weights)
        pixels = normalize(images, sizes, config.model)
        features = model.features(images, sizes)
        rpn = model.rpn(features)
        anchors = model.anchors(features, sizes)
        proposed = model.propose(rpn, anchors, sizes, config.test)
        logits, deltas = model.box_outputs(features, proposals)
        found = {"pixels": pixels, "box_logits": logits, "box_deltas": deltas}
        found["size of pixels"] = padded_sizes(sizes, config.model.padding_multiple)
        found |= {f"features/{level}": value for level, value in features.maps.items()}
        found |= {f"size of features/{level}": size for level, size in features.sizes.items()}
        for level, (objectness, delta) in rpn.items():
            found[f"objectness/{level}"] = objectness
            found[f"deltas/{level}"] = delta.reshape(*objectness.shape, 4)
            found[f"anchors/{level}"] = anchors[level].boxes
            found[f"in_image/{level}"] = anchors[level].in_image
        found["proposals/boxes"], found["proposals/valid"] = proposed.boxes, proposed.valid
        found["proposals/scores"] = proposed.scores
        all_valid = jnp.ones(detected.shape[:2], bool)
        if model.mask_head is not None:
            found["mask_logits"] = model.mask_logits(features, detected, labels, all_valid)
        if model.keypoint_head is not None:
            found["keypoint_logits"] = model.keypoint_logits(features, detected, all_valid)
        return found

    def stages(weights: Arrays, image: np.ndarray, theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        data = config.data
        fitted = fit(
            image,
            short_side=data.test_short_side,
            long_side=data.long_side,
            canvases=data.canvases,
            rule=data.resize,
        )
        labels = theirs["detected_labels"].astype(np.int32)
        given = (np.array(fitted.size), theirs["proposals/boxes"], theirs["detected_boxes"], labels)
        with jax.set_mesh(make_mesh(jax.devices()[:1])):
            computed = compute(weights, fitted.image[None], *(jnp.asarray(value)[None] for value in given))
        return _in_image({name: np.asarray(value[0]) for name, value in computed.items()}, theirs)

    return stages


def _in_image(found: dict[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One image's stages, with padding removed."""
    valid = found.pop("proposals/valid")
    for name in ("proposals/boxes", "proposals/scores"):
        found[name] = found[name][valid]
    # The peer has none of the canvas's extra cells and anchors; its maps end where its padded image does.
    for name in [name for name in found if name.startswith("in_image/")]:
        level, in_image = name.removeprefix("in_image/"), found.pop(name)
        for kind in ("objectness", "deltas", "anchors"):
            found[f"{kind}/{level}"] = found[f"{kind}/{level}"][in_image]
    for name in ("pixels", *(n for n in found if n.startswith("features/"))):
        height, width = found.pop(f"size of {name}")
        found[name] = found[name][:height, :width]
    return found


def training_batch(dataset: CocoDataset, file_names: np.ndarray, config: Config) -> Batch:
    """The named images at the single training scale, not flipped."""
    source = FolderSource(dataset, mask_grid=config.data.mask_grid if config.model.mask else 0)
    index = {image.file_name: number for number, image in enumerate(dataset.images)}
    settings = dataclasses.replace(config.data, flip=False)
    examples = [
        load_example(
            source,
            index[str(name)],
            settings,
            generator=np.random.default_rng(0),
            canvas=training_canvas(tuple(source.sizes[index[str(name)]].tolist()), settings),
            masks=config.model.mask,
            keypoints=config.model.keypoint,
        )
        for name in file_names
    ]
    fields = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    images, sizes, _ = (fields.pop(name) for name in ("images", "image_sizes", "ids"))
    return Batch(images=images, image_sizes=sizes, ids=None, gt=GroundTruth(**fields))


def losses_and_gradients(
    blueprint: Blueprint, weights: Arrays, config: Config, batch: Batch
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The losses by name, the gradient of their sum by parameter, and the targets by name."""
    params, frozen, batch_stats = blueprint.split(weights)
    key = jax.random.key(0)

    @jax.jit
    def compute(params: Arrays, batch: Batch) -> tuple[dict, dict]:
        def loss_fn(params: Arrays) -> tuple[jax.Array, dict]:
            model = blueprint.build(params | frozen | batch_stats)
            model.train()
            losses = compute_losses(model, batch, key, config)
            return sum(losses.values(), jnp.zeros(())), losses

        gradients, losses = jax.grad(loss_fn, has_aux=True)(params)
        return losses, gradients

    losses, gradients = jax.device_get(compute(params, batch))
    find_targets = jax.jit(lambda weights, batch: _targets(blueprint.build(weights), batch, key, config))
    targets = jax.device_get(find_targets(weights, batch))
    return losses, gradients, targets


def _targets(model: MaskRCNN, batch: Batch, key: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The targets of a batch's anchors and regions."""
    train = config.train
    features = model.features(batch.images, batch.image_sizes)
    rpn = model.rpn(features)
    anchors = model.anchors(features, batch.image_sizes)
    all_anchors = jax.tree.map(lambda *levels: jnp.concatenate(levels, axis=1), *anchors.values())
    proposals = model.propose(rpn, anchors, batch.image_sizes, train)
    keys = jax.random.split(key, len(batch.images))
    rpn_targets = jax.vmap(partial(anchor_targets, config=train))(keys, all_anchors, batch.gt)
    regions = jax.vmap(partial(region_targets, config=train))(keys, proposals, batch.gt)
    return {
        "in_image": all_anchors.in_image,
        "anchor_labels": _of_all_anchors(rpn_targets, all_anchors) - Assignment.NEGATIVE,  # -1, 0, 1
        "roi_boxes": regions.boxes,
        "roi_labels": jnp.where(regions.assignment == Assignment.IGNORE, -1, regions.labels),
    }


def _of_all_anchors(targets: AnchorTargets, anchors: Anchors) -> jax.Array:
    """The assignment ``[B A]`` of every anchor, IGNORE where it was not sampled."""

    def spread(index: jax.Array, assignment: jax.Array, in_image: jax.Array) -> jax.Array:
        index = jnp.where(assignment == Assignment.IGNORE, len(in_image), index)
        return jnp.full(len(in_image), Assignment.IGNORE).at[index].set(assignment, mode="drop")

    return jax.vmap(spread)(targets.index, targets.assignment, anchors.in_image)


def steps(
    blueprint: Blueprint,
    weights: Arrays,
    config: Config,
    batches: list[Batch],
    proposals: list[Proposals],
) -> dict[str, np.ndarray]:
    """The losses of a training step for each of ``proposals``, over the batches in turn.

    These replace the RPN's own proposals, so that rounding cannot change which regions the heads see.
    """
    state = make_state(blueprint, weights, config)

    @jax.jit
    def step(state: TrainState, batch: Batch, given: Proposals) -> tuple[TrainState, dict]:
        with mock.patch.object(MaskRCNN, "propose", lambda *_, **__: given):
            return train_step(state, batch, blueprint=blueprint, config=config)

    history = []
    for number, given in enumerate(proposals):
        state, metrics = step(state, batches[number % len(batches)], given)
        history.append(jax.device_get(metrics))
    return {name: np.array([metrics[name] for metrics in history]) for name in history[0]}


def given_proposals(theirs: Mapping[str, np.ndarray], step: int) -> Proposals:
    """The peer's proposals at a step, in our format."""
    prefix = f"step_proposals/{step}/"
    boxes = [theirs[f"{prefix}{image}"] for image in range(sum(name.startswith(prefix) for name in theirs))]
    count = max(map(len, boxes))
    padded = np.stack([np.pad(b, [(0, count - len(b)), (0, 0)]) for b in boxes])
    valid = np.stack([np.arange(count) < len(b) for b in boxes])
    return Proposals(boxes=padded, scores=np.zeros(valid.shape, np.float32), valid=valid)
