"""Workloads of the whole model: inference from pixels to results, its stages, and the training step.

Weights are random, for 80 categories and 17 keypoints. The score threshold is chosen so that 1000 pairs of a
region and a category reach it, so that an image has the maximum number of detections.
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.benchmarks.timing import Workload, compiled, count_flops
from mrcnn_jax.config import Config, ModelConfig
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, map_images, replicated
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.inference.predict import predict, select_detections
from mrcnn_jax.models import valid_regions
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runtime.compilations import compiler_options
from mrcnn_jax.training.step import CompiledStep, TrainState, compile_step, make_state, train_step
from mrcnn_jax.types import Batch, GroundTruth
from mrcnn_jax.weights.export import builder_name
from mrcnn_jax.weights.torchvision import to_torchvision

_CATEGORIES = 80
_KEYPOINTS = 17
_OBJECTS = 8  # per training image, about as many as in COCO
_SMALLEST_OBJECT = 1 / 20  # fraction of the image's shorter side
_CANDIDATES = 1000


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its weights, and the size of its input images."""

    config: Config  # with a single canvas, whose longer side images fill
    blueprint: Blueprint
    weights: Arrays
    image_size: tuple[int, int]  # height, width

    @property
    def canvas(self) -> tuple[int, int]:
        return self.config.data.canvases[0]

    def folded(self) -> "Model":
        """The model for inference, with its batch norms folded into convolutions."""
        weights = jax.jit(self.blueprint.fold)(self.weights)
        return dataclasses.replace(self, blueprint=self.blueprint.folded(), weights=weights)

    def settings(self) -> dict[str, Any]:
        """The settings from which torchvision builds the same model; empty if it has no such model."""
        name = builder_name(self.config)
        if name is None:
            return {}
        return {
            "model": name,
            "classes": _CATEGORIES + 1,
            "keypoints": _KEYPOINTS,
            "dtype": self.config.model.dtype,
            "arguments": {
                "min_size": min(self.image_size),
                "max_size": max(self.image_size),
                "box_score_thresh": self.config.test.score_threshold,
                "box_detections_per_img": self.config.test.detections,
            },
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights with torchvision's names; empty if it has no such model."""
        if builder_name(self.config) is None:
            return {}
        weights = {name: np.asarray(array) for name, array in self.weights.items()}
        return {f"weights/{name}": value for name, value in to_torchvision(weights, self.blueprint).items()}

    def images(self, count: int) -> np.ndarray:
        """uint8 [count H W 3], without padding: coloured blocks, so that features vary."""
        generator = np.random.default_rng(0)
        height, width = self.image_size
        blocks = generator.integers(0, 256, (count, -(-height // 16), -(-width // 16), 3), np.uint8)
        return blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]


def make_model(config: Config, *, choose_threshold: bool = True) -> Model:
    """The model of ``config``, for the first of its canvases.

    Raises ValueError for a model without an RPN or without heads.
    """
    for part in ("rpn", "box"):
        if not getattr(config.model, part):
            raise ValueError(f"model.{part} is False; must be True for a benchmark, which times all stages")
    height, width = config.data.canvases[0]
    image_size = min(height, config.data.long_side), min(width, config.data.long_side)
    data = dataclasses.replace(
        config.data,
        canvases=((height, width),),
        test_short_side=min(image_size),
        long_side=max(image_size),
    )
    config = dataclasses.replace(config, data=data)
    keypoints = _KEYPOINTS if config.model.keypoint else 0
    blueprint = make_blueprint(config.model, num_classes=_CATEGORIES, num_keypoints=keypoints)
    weights = blueprint.draw(jax.random.key(0))
    model = Model(config, blueprint, weights, image_size)
    if not choose_threshold:
        return model
    test = dataclasses.replace(config.test, score_threshold=_score_threshold(model))
    return dataclasses.replace(model, config=dataclasses.replace(config, test=test))


def make_categories(config: ModelConfig) -> Categories:
    """Names for the categories and keypoints of the model."""
    return Categories(
        ids=tuple(range(1, _CATEGORIES + 1)),
        names=tuple(f"category {number}" for number in range(1, _CATEGORIES + 1)),
        keypoint_labels=(1,) if config.keypoint else (),
        keypoint_names=tuple(f"point {number}" for number in range(_KEYPOINTS)),
    )


def infer(name: str, model: Model, batch_size: int) -> Workload:
    """Inference, from arrays of pixels to entries of a COCO results list with run-length codes."""
    mesh = make_mesh(jax.devices()[:1])
    weights = jax.device_put(model.weights, replicated(mesh))
    predict_fn = make_predict_fn(model.blueprint, model.config, mesh)(weights)
    categories = make_categories(model.config.model)
    detector = Detector(predict_fn, model.config, categories, batch_size=batch_size)
    images = list(model.images(batch_size))

    def run() -> list[Any]:
        return [result.to_coco(0) for result in detector(images)]

    folded = model.folded()
    pixels, sizes = on_canvas(model, batch_size)
    program = _program(folded, lambda m, images: predict(m, images, sizes, model.config))
    flops = _count_flops(program, folded.weights, pixels)
    return Workload(
        name,
        run,
        model.settings(),
        lambda: model.arrays() | {"images": np.stack(images)},
        flops,
        images=batch_size,
    )


def stages(model: Model) -> list[Workload]:
    """The stages of inference, each timed alone, for one image; of a cascade the first box head alone."""
    model = model.folded()
    config, test, weights = model.config.model, model.config.test, model.weights
    images, sizes = on_canvas(model, 1)

    def find_proposals(m: Any, features: Any, outputs: Any) -> Any:
        return m.propose(outputs, m.anchors(features, sizes), sizes, test)

    def pool_and_classify(m: Any, features: Any, boxes: Any) -> Any:
        return m.box_outputs(m.region_features(features), boxes)

    def select(_: Any, proposals: Any, logits: Any, deltas: Any) -> Any:
        choose = partial(
            select_detections,
            config=test,
            box_weights=config.box_weights,
            scores_of=config.box_scores,
            scale_limits=config.box_scale_limits,
        )
        return map_images(choose, proposals, (logits,), deltas, sizes)

    timed: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []

    def stage(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        timed.append((name, function, arguments))
        return jax.jit(_program(model, function))(weights, *arguments)

    features = stage("backbone and pyramid", lambda m, x: m.features(x, sizes), images)
    outputs = stage("rpn head", lambda m, f: m.rpn_outputs(f), features)
    proposals = stage("proposals", find_proposals, features, outputs)
    box_outputs = stage("box head", pool_and_classify, features, proposals.boxes)
    found = stage("detections", select, proposals, *box_outputs)
    regions = (features, found.boxes, found.labels, found.valid)
    if config.mask:
        stage("mask head", lambda m, f, *a: m.mask_logits(m.region_features(f), *a), *regions)
    if config.keypoint:
        points = (features, found.boxes, found.valid)
        stage("keypoint head", lambda m, f, *a: m.keypoint_logits(m.region_features(f), *a), *points)
    workloads = []
    for name, function, arguments in timed:
        program = _program(model, function)
        flops = _count_flops(program, weights, *arguments)
        workloads.append(Workload(f"stage: {name}", compiled(program, weights, *arguments), flops=flops))
    return workloads


def train(name: str, model: Model, objects: np.ndarray, *, devices: int = 1) -> Workload:
    """A step of SGD, with a learning rate so small that all steps do the same amount of computation.

    ``objects`` are the boxes of each image, from ``choose_objects``. The first step donates the memory of the
    model's weights.
    """
    step, state, batch, config = make_training(model, objects, devices=devices)
    program = partial(train_step, blueprint=model.blueprint, config=config)
    flops = _count_flops(program, jax.eval_shape(lambda: state), batch)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    def arrays() -> dict[str, np.ndarray]:
        return model.arrays() | peer_batch(model, batch)

    return Workload(name, run, model.settings(), arrays, flops, images=len(objects))


def make_training(
    model: Model, objects: np.ndarray, *, devices: int = 1
) -> tuple[CompiledStep, TrainState, Batch, Config]:
    """The step of ``train``, its first state and its batch, both on the devices, and its config."""
    train = dataclasses.replace(model.config.train, batch_size=len(objects), learning_rate=1e-9)
    config = dataclasses.replace(model.config, train=train)
    mesh = make_mesh(jax.devices()[:devices])
    step = compile_step(model.blueprint, config, mesh)
    state = jax.device_put(make_state(model.blueprint, model.weights, config), replicated(mesh))
    batch = jax.device_put(make_batch(model, objects), batch_sharding(mesh))
    return step, state, batch, config


def training_program(config: Config, batch_size: int) -> tuple[jax.stages.Compiled, Callable[[], Any]]:
    """The compiled step of ``train``, and a function that takes a step with it."""
    model = make_model(config, choose_threshold=False)
    step, state, batch, _ = make_training(model, choose_objects(model, batch_size))
    program = step.lower(state, batch).compile()

    def run() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready(metrics)

    return program, run


def prediction_program(config: Config, batch_size: int) -> tuple[jax.stages.Compiled, Callable[[], Any]]:
    """The compiled program of inference, without the host's part of it, and a function that runs it."""
    model = make_model(config)
    folded = model.folded()
    images, sizes = on_canvas(model, batch_size)
    function = _program(folded, lambda m, images: predict(m, images, sizes, model.config))
    with jax.set_mesh(make_mesh(jax.devices()[:1])):
        options = compiler_options(jax.devices()[0])
        program = jax.jit(function, compiler_options=options).lower(folded.weights, images).compile()
    return program, lambda: jax.block_until_ready(program(folded.weights, images))


def choose_objects(model: Model, batch_size: int) -> np.ndarray:
    """Boxes ``[batch_size _ 4]`` of objects, chosen from the model's own proposals.

    This gives a model with random weights about as many positive regions as a trained one.
    """
    images, sizes = on_canvas(model, batch_size)

    def find(m: Any, images: Any, sizes: Any) -> Any:
        features = m.features(images, sizes)
        return m.propose(m.rpn(features), m.anchors(features, sizes), sizes, model.config.test)

    # One by one: a single compilation for batches of all sizes.
    propose = jax.jit(_program(model, find))
    proposals = [propose(model.weights, images[i : i + 1], sizes[i : i + 1]) for i in range(batch_size)]
    height, width = model.image_size
    smallest = _SMALLEST_OBJECT * min(height, width)
    count = min(_OBJECTS, model.config.data.max_objects)
    objects = []
    for (boxes,) in (np.asarray(found.boxes) for found in proposals):
        large = boxes[np.min(boxes[:, 2:] - boxes[:, :2], axis=1) >= smallest]
        if not len(large):
            raise ValueError(
                f"no proposal has sides of at least {smallest:.0f} pixels: data.canvases or "
                "test.rpn_post_nms is too small to choose objects"
            )
        objects.append(large[np.linspace(0, len(large) - 1, count).astype(int)])
    return np.stack(objects)


def make_batch(model: Model, objects: np.ndarray) -> Batch:
    """A batch whose objects are the ellipses inscribed in their boxes."""
    generator = np.random.default_rng(1)
    rows, grid = model.config.data.max_objects, model.config.data.mask_grid
    batch_size, count = objects.shape[:2]
    boxes = np.zeros((batch_size, rows, 4), np.float32)
    boxes[:, :count] = objects
    labels = np.zeros((batch_size, rows), np.int32)
    labels[:, :count] = 1 if model.config.model.keypoint else generator.integers(1, _CATEGORIES + 1, count)
    valid = np.arange(rows) < count
    cells = (np.arange(grid) + 0.5) / grid * 2 - 1
    masks = np.zeros((batch_size, rows, grid, grid), np.uint8)
    masks[:, :count] = cells[:, None] ** 2 + cells**2 <= 1
    keypoints = np.zeros((batch_size, rows, _KEYPOINTS, 3), np.float32)
    keypoints[:, :count, :, :2] = generator.uniform(
        objects[:, :, None, :2], objects[:, :, None, 2:], (batch_size, count, _KEYPOINTS, 2)
    )
    keypoints[:, :count, :, 2] = 2

    images, sizes = on_canvas(model, batch_size)
    learnt = model.config.model
    return Batch(
        images=images,
        image_sizes=sizes,
        ids=None,
        gt=GroundTruth(
            boxes=jnp.asarray(boxes),
            labels=jnp.asarray(labels),
            crowd=jnp.zeros(labels.shape, bool),
            valid=jnp.broadcast_to(valid, labels.shape),
            masks=jnp.asarray(masks) if learnt.mask else None,
            mask_boxes=jnp.asarray(boxes) if learnt.mask else None,
            keypoints=jnp.asarray(keypoints) if learnt.keypoint else None,
        ),
    )


def peer_batch(model: Model, batch: Batch) -> dict[str, np.ndarray]:
    """The batch for the reference implementation: without padding, with masks as bitmaps of the image."""
    gt = batch.gt
    height, width = model.image_size
    count = int(np.sum(gt.valid[0]))
    boxes = np.asarray(gt.boxes[:, :count])
    arrays = {
        "images": np.asarray(batch.images[:, :height, :width]),
        "boxes": boxes,
        "labels": np.asarray(gt.labels[:, :count]),
    }
    if gt.masks is not None:
        y, x = np.ogrid[:height, :width]
        corner, side = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        centre, half = (corner + side) / 2, (side - corner) / 2
        distance = ((x + 0.5 - centre[..., 0]) / half[..., 0]) ** 2
        distance = distance + ((y + 0.5 - centre[..., 1]) / half[..., 1]) ** 2
        arrays["masks"] = (distance <= 1).astype(np.uint8)
    if gt.keypoints is not None:
        arrays["keypoints"] = np.asarray(gt.keypoints[:, :count])
    return arrays


def _count_flops(function: Callable[..., Any], *arguments: Any) -> Callable[[], float | None]:
    """Like ``count_flops``, with all regions in one block, because it counts a loop's body only once."""

    def count() -> float | None:
        block = valid_regions.BLOCK
        valid_regions.BLOCK = sys.maxsize
        try:
            return count_flops(lambda *a: function(*a), *arguments)()  # a new function, to trace it again
        finally:
            valid_regions.BLOCK = block

    return count


def _program(model: Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(model, *arguments)`` as a function of the model's weights and the arguments."""
    return lambda weights, *arguments: function(model.blueprint.build(weights), *arguments)


def on_canvas(model: Model, count: int) -> tuple[Array, Array]:
    """Padded images, and their sizes."""
    images = np.zeros((count, *model.canvas, 3), np.uint8)
    height, width = model.image_size
    images[:, :height, :width] = model.images(count)
    return jnp.asarray(images), jnp.full((count, 2), jnp.array(model.image_size), jnp.int32)


def _score_threshold(model: Model) -> float:
    """The score of the ``_CANDIDATES``-th best pair of a region and a category."""
    images, sizes = on_canvas(model, 1)

    def scores(m: Any, images: Any) -> Any:
        features = m.features(images, sizes)
        proposals = m.propose(m.rpn(features), m.anchors(features, sizes), sizes, model.config.test)
        logits, _ = m.box_outputs(features, proposals.boxes)
        best = jax.lax.top_k(jax.nn.softmax(logits)[..., 1:].reshape(-1), _CANDIDATES)[0]
        return jnp.min(best)

    return float(jax.jit(_program(model, scores))(model.weights, images))
