"""The losses of the validation set: those of training, without augmentation and without a gradient."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int

from mrcnn_jax.config import Config
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.open_proposals import open_proposals
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.data.validation import measured_images, validation_batches
from mrcnn_jax.distributed import hosts
from mrcnn_jax.distributed.sharding import batch_sharding, replicated
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options
from mrcnn_jax.training.objective import sum_losses
from mrcnn_jax.types import Batch

Sums = dict[str, dict[str, float]]  # of every stage: its losses' sums, and "count"


class ValidationLosses:
    """Measures the losses of the images of ``source``, which has the run's categories in any order.

    They are those of all images in one batch. An image's anchors and regions are sampled with a key of its
    own, the same in every measurement. Batch norms normalise as in inference, and no path is dropped.
    ``image_counts`` are those of ``compute_losses``.

    Raises:
        ValueError: if there is no image to train on in ``source``, or an image's proposals are missing.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        config: Config,
        categories: Categories,
        source: DataSource,
        mesh: Mesh,
        *,
        batch_size: int,
        image_counts: np.ndarray | None = None,
    ) -> None:
        self._config, self._mesh, self._batch_size = config, mesh, batch_size
        self._source = AlignedSource(source, categories)
        self._proposals = open_proposals(config, source, "val")
        self._masks = config.model.mask and source.has_masks
        self._keypoints = config.model.keypoint and bool(self._source.categories.keypoint_names)
        self._images = measured_images(self._source, config.data, keypoints=self._keypoints)
        self._jitted = jax.jit(
            partial(_sum_batch, blueprint=blueprint, config=config, image_counts=image_counts),
            in_shardings=(replicated(mesh), batch_sharding(mesh), replicated(mesh)),
            compiler_options=compiler_options(mesh.devices.flat[0]),
        )
        self._compilations = CompilationTracker("the validation losses", config.data.canvases)

    def measure(self, weights: Arrays) -> dict[str, float]:
        """The losses by name, and their sum, "loss"; every process measures its share of the images."""
        with hosts.fail_together():
            own = self._sum(weights)
        total: Sums = {}
        for sums in hosts.all_gather(own):
            _add(total, sums)
        losses = {
            name: value / max(stage["count"], 1)
            for stage in total.values()
            for name, value in stage.items()
            if name != "count"
        }
        return losses | {"loss": sum(losses.values())}

    def _sum(self, weights: Arrays) -> Sums:
        batches = validation_batches(
            self._source,
            self._config.data,
            self._images[jax.process_index() :: jax.process_count()],
            batch_size=self._batch_size,
            masks=self._masks,
            keypoints=self._keypoints,
            proposals=self._proposals,
            num_proposals=self._config.train.rpn_post_nms,
            pixels=PixelFormat.of(self._config),
        )
        total: Sums = {}
        for batch, indices in batches:
            batch = dataclasses.replace(batch, ids=None)
            compiles = self._compilations.record(batch.images, batch)
            with jax.set_mesh(self._mesh), self._compilations.announced(batch.images, compiles):
                found = self._jitted(weights, batch, indices.astype(np.int32))
            _add(total, jax.tree.map(float, jax.device_get(found)))
        return total


def _sum_batch(
    weights: Arrays,
    batch: Batch,
    indices: Int[Array, " b"],
    *,
    blueprint: Blueprint,
    config: Config,
    image_counts: np.ndarray | None,
) -> dict[str, dict[str, Array]]:
    """The sums and counts of a batch, whose rows have these ``indices`` in the data, -1 for padding."""
    key = jax.random.key(config.train.seed)
    keys = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(key, index)))(indices)
    counts = None if image_counts is None else jnp.asarray(image_counts, jnp.float32)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, backbone_drop_path=0.0))
    stages = sum_losses(blueprint.build(weights), batch, keys.T, config, counts)

    def count(found: Any) -> Array:  # an int is a number per image
        return found * (indices >= 0).sum() // len(indices) if isinstance(found, int) else found

    return {name: stage.sums | {"count": jnp.asarray(count(stage.count))} for name, stage in stages.items()}


def _add(total: Sums, sums: Sums) -> None:
    """Adds ``sums`` to ``total``."""
    for stage, values in sums.items():
        so_far = total.setdefault(stage, {})
        for name, value in values.items():
            so_far[name] = so_far.get(name, 0.0) + value
