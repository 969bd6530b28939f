"""Runs the region proposal network of a trained model on a data set's images, in batches."""

import dataclasses
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int

from mrcnn_jax.config import Config, ModelConfig
from mrcnn_jax.distributed.sharding import batch_sharding, replicated
from mrcnn_jax.images import Fitted, fit, fitted_shape
from mrcnn_jax.inference.detector import load_model, with_folded_weights
from mrcnn_jax.inference.predict import predict_proposals
from mrcnn_jax.inference.sources import stack_images
from mrcnn_jax.models.variables import Blueprint
from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.runtime.compilations import compiler_options
from mrcnn_jax.types import Proposals
from mrcnn_jax.weights.zoo import workdir_of

_AHEAD = 2  # batches that are read or on the device ahead of the one whose proposals are returned

# Takes images [B H W C] and their sizes without padding, [B 2] int32; does not wait for the device.
ProposeFn = Callable[[np.ndarray, np.ndarray], Proposals]


class Proposer:
    """Finds the proposals of images: ``config.test.rpn_post_nms`` of each at most.

    Args:
        propose_fn: compiled once per canvas of ``config.data``.
        config: the run's config.
        categories: the run's categories, which its proposals do not have.
        batch_size: images per batch.
        step: the step of the checkpoint that the weights come from, if any.
    """

    def __init__(
        self,
        propose_fn: ProposeFn,
        config: Config,
        categories: Categories,
        *,
        batch_size: int = 1,
        step: int | None = None,
    ) -> None:
        self.config = config
        self.categories = categories
        self.batch_size = batch_size
        self.step = step
        self._propose_fn = propose_fn

    def stream(
        self,
        read: Callable[[int], np.ndarray],
        sizes: Int[np.ndarray, "n 2"],
        *,
        done: Collection[int] = frozenset(),
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[int, ImageProposals]]:
        """Yields the index and the proposals of each of N images, those of one canvas after another.

        Args:
            read: the pixels ``[H W C]`` of the image at an index, called in threads.
            sizes: height and width of each image.
            done: indices of images that are not wanted. A batch that has any other image is computed as a
                whole, so results do not depend on ``done``, bit for bit.
            share: index and number of the processes, each of which takes every n-th batch.

        Raises the errors of ``read``.
        """
        ahead: deque[tuple[list[int], list[Future[Fitted]]]] = deque()
        computing: deque[tuple[list[int], list[Fitted], Proposals]] = deque()
        threads = ThreadPoolExecutor()

        def dispatch() -> None:
            indices, reading = ahead.popleft()
            batch = [image.result() for image in reading]
            computing.append((indices, batch, self._propose_fn(*stack_images(batch, self.batch_size))))

        def finish() -> Iterator[tuple[int, ImageProposals]]:
            indices, batch, proposals = computing.popleft()
            on_host = jax.device_get(proposals)
            for row, (index, fitted) in enumerate(zip(indices, batch, strict=True)):
                if index in done:
                    continue
                yield index, _in_original(on_host, row, fitted.size, sizes[index])

        try:
            for indices in islice(self._batches(sizes), share[0], None, share[1]):
                if all(index in done for index in indices):
                    continue
                ahead.append((indices, [threads.submit(self._fit, read, index) for index in indices]))
                if len(ahead) > _AHEAD:
                    dispatch()
                if len(computing) > _AHEAD:
                    yield from finish()
            while ahead:
                dispatch()
            while computing:
                yield from finish()
        finally:  # also when the caller stops early
            threads.shutdown(wait=False, cancel_futures=True)

    def _fit(self, read: Callable[[int], np.ndarray], index: int) -> Fitted:
        return fit(read(index), **self._fitting())

    def _fitting(self) -> dict[str, Any]:
        data = self.config.data
        return {
            "short_side": data.test_short_side,
            "long_side": data.long_side,
            "canvases": data.canvases,
            "rule": data.resize,
        }

    def _batches(self, sizes: np.ndarray) -> Iterator[list[int]]:
        """The indices of each batch, whose images lie on one canvas."""
        by_canvas: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (height, width) in enumerate(sizes.tolist()):
            by_canvas[fitted_shape(height, width, **self._fitting())[1]].append(index)
        for indices in by_canvas.values():
            for start in range(0, len(indices), self.batch_size):
                yield indices[start : start + self.batch_size]


def _in_original(
    proposals: Proposals, row: int, size: tuple[int, int], original: Int[np.ndarray, "2"]
) -> ImageProposals:
    """The proposals of a row of a batch, in pixels of the original image instead of the resized one."""
    height, width = original.tolist()
    boxes, scores, valid = (np.asarray(x[row]) for x in (proposals.boxes, proposals.scores, proposals.valid))
    scaled = (boxes[valid] * np.array([width / size[1], height / size[0]] * 2)).astype(np.float32)
    return ImageProposals(np.minimum(scaled, np.array([width, height] * 2, np.float32)), scores[valid])


def load_proposer(
    workdir: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    batch_size: int = 1,
    config: Config | None = None,
    split: Literal["train", "val"] = "val",
) -> Proposer:
    """The region proposal network of a trained run, or of a published model; see ``detector.load``.

    It proposes as much as is taken for the training or validation images: see ``with_limits``. Raises
    ValueError, besides the errors of ``detector.load``, if the model has no RPN.
    """
    workdir = workdir_of(workdir)
    run = read_run(workdir)
    config = with_limits(run.config if config is None else config, split)
    check_proposes(config.model)
    step, blueprint, weights, mesh = load_model(workdir, run, config, step=step, batch_size=batch_size)
    propose_fn = make_propose_fn(blueprint, config, mesh)(weights)
    return Proposer(propose_fn, config, run.categories, batch_size=batch_size, step=step)


def with_limits(config: Config, split: Literal["train", "val"]) -> Config:
    """The config with the limits in ``config.test`` that proposals for ``split`` need.

    Heads train on ``train.rpn_post_nms`` proposals of an image, often far more than are used at test, and
    selected as ``train.rpn_pre_nms`` and ``train.rpn_nms_iou`` say.
    """
    if split == "val":
        return config
    train = config.train
    test = dataclasses.replace(
        config.test,
        rpn_pre_nms=train.rpn_pre_nms,
        rpn_post_nms=train.rpn_post_nms,
        rpn_nms_iou=train.rpn_nms_iou,
    )
    return dataclasses.replace(config, test=test)


def check_proposes(model: ModelConfig) -> None:
    """Raises ValueError if the model has no RPN."""
    if not model.rpn:
        raise ValueError("the model has no RPN (model.rpn is False), so it makes no proposals")


def make_propose_fn(
    blueprint: Blueprint, config: Config, mesh: Mesh
) -> Callable[[Mapping[str, Array]], ProposeFn]:
    """A function that takes weights and returns a ``ProposeFn``; see ``detector.make_predict_fn``."""
    return with_folded_weights(jit_propose(blueprint, config, mesh), blueprint, config.data.canvases, mesh)


def jit_propose(blueprint: Blueprint, config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """``predict_proposals`` jitted for ``mesh``, of the arguments of ``detector.jit_predict``."""
    folded, sharding = blueprint.folded(), batch_sharding(mesh)

    def propose_batch(arrays: Mapping[str, Array], images: Array, image_sizes: Array) -> Proposals:
        return predict_proposals(folded.build(arrays), images, image_sizes, config)

    return jax.jit(
        propose_batch,
        in_shardings=(replicated(mesh), sharding.images, sharding.image_sizes),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
