"""Batch norm's statistics of fixed weights (``train.precise_bn``), in place of the running averages.

The running averages are of the last batches, each with the weights of its step. These are the mean and the
variance over many batches with the same weights ("Rethinking Batch in BatchNorm", arXiv 2105.07576,
section 3), as fvcore's ``update_bn_stats`` computes them for Detectron2's ``PreciseBN``: each batch is
normalised by its own statistics, as in training, and counts by its number of cells.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax import Array, lax
from jax.sharding import Mesh
from jaxtyping import Float

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import batch_sharding, replicated
from mrcnn_jax.models.canvas import Mask
from mrcnn_jax.models.variables import Arrays, Blueprint, arrays_of, name_of
from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options
from mrcnn_jax.training.accumulation import split_batch
from mrcnn_jax.training.objective import image_keys, sum_losses
from mrcnn_jax.training.step import TrainState, training_model
from mrcnn_jax.types import Batch


@struct.dataclass
class Statistics:
    """Mean and variance of a batch norm's inputs, and over how many cells."""

    mean: Array  # [C]
    var: Array  # [C], not Bessel-corrected
    cells: Array  # float32 scalar


def merge(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of the cells of both. Where ``b`` has no cells, its mean and variance are not read."""
    cells = a.cells + b.cells
    share = jnp.where(b.cells > 0, b.cells / jnp.maximum(cells, 1), 0.0)
    difference = jnp.where(b.cells > 0, b.mean - a.mean, 0.0)
    change = jnp.where(b.cells > 0, b.var - a.var, 0.0)
    var = a.var + share * change + share * (1 - share) * difference**2
    return Statistics(a.mean + share * difference, var, cells)


class _Measured(nnx.Module):
    """A batch norm that adds the cells of every map that it normalises to its statistics.

    More than one map, if regions for boxes and for masks both pass through stage 5 (features "c4").
    """

    def __init__(self, norm: nnx.BatchNorm, so_far: Statistics) -> None:
        norm.momentum = 0.0  # its running statistics are then those of the last map
        self.norm = norm
        self.mean, self.var = nnx.BatchStat(so_far.mean), nnx.BatchStat(so_far.var)
        self.cells = nnx.BatchStat(so_far.cells)

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        normalised = self.norm(x, mask=mask)
        of_map = (*x.shape[:-1], 1)
        inside = jnp.ones(of_map) if mask is None else jnp.broadcast_to(mask, of_map)
        found = Statistics(self.norm.mean[...], self.norm.var[...], inside.sum(dtype=jnp.float32))
        both = merge(Statistics(self.mean[...], self.var[...], self.cells[...]), found)
        self.mean[...], self.var[...], self.cells[...] = both.mean, both.var, both.cells
        return normalised


def trained_norms(blueprint: Blueprint) -> list[str]:
    """The names of the batch norms whose running statistics training updates."""
    _, _, batch_stats = blueprint.split(blueprint.shapes())
    return [name.removesuffix(".mean") for name in batch_stats if name.endswith(".mean")]


def measure(
    so_far: dict[str, Statistics],
    weights: Arrays,
    batch: Batch,
    step: Array,
    *,
    blueprint: Blueprint,
    config: Config,
    image_counts: np.ndarray | None = None,
) -> dict[str, Statistics]:
    """``so_far``, by the norm's name, with the cells of the batch of a ``step``, which takes none.

    The parts of a batch (``train.accumulate``) are normalised one by one, as in training.
    """
    _, frozen, _ = blueprint.split(weights)
    counts = None if image_counts is None else jnp.asarray(image_counts, jnp.float32)
    key = jax.random.fold_in(jax.random.key(config.train.seed), step)

    def add(so_far: dict[str, Statistics], part: tuple[Batch, Array]) -> tuple[dict[str, Statistics], None]:
        model = training_model(blueprint, weights, frozen)
        modules = dict(nnx.iter_modules(model))
        for path, module in modules.items():
            if isinstance(module, nnx.BatchNorm) and (name := name_of(path)) in so_far:
                setattr(modules[path[:-1]], str(path[-1]), _Measured(module, so_far[name]))
        sum_losses(model, *part, config, counts)
        found = arrays_of(model, nnx.BatchStat)
        return {
            name: Statistics(found[f"{name}.mean"], found[f"{name}.var"], found[f"{name}.cells"])
            for name in so_far
        }, None

    parts = split_batch(batch, image_keys(key, len(batch.images)), config.train.accumulate)
    return lax.scan(add, so_far, parts)[0]


class PreciseStatistics:
    """Gives the weights that a state offers to inference the statistics of further batches.

    ``image_counts`` are those of ``compute_losses``.
    """

    def __init__(
        self, blueprint: Blueprint, config: Config, mesh: Mesh, image_counts: np.ndarray | None = None
    ) -> None:
        self._norms, self._mesh = trained_norms(blueprint), mesh
        self._jitted = jax.jit(
            partial(measure, blueprint=blueprint, config=config, image_counts=image_counts),
            in_shardings=(replicated(mesh), replicated(mesh), batch_sharding(mesh), replicated(mesh)),
            out_shardings=replicated(mesh),
            donate_argnums=0,
            compiler_options=compiler_options(mesh.devices.flat[0]),
        )
        self._compilations = CompilationTracker("the precise batch norm", config.data.canvases)

    def update(self, state: TrainState, batches: Iterable[Batch]) -> TrainState:
        """The state with the statistics of its weights over ``batches``, those of its next steps.

        With ``train.ema_decay`` they are of the averages, and become a part of these.
        """
        weights, found = state.weights(), self._nothing(state)
        for number, batch in enumerate(batches):
            compiles = self._compilations.record(batch.images, batch)
            with jax.set_mesh(self._mesh), self._compilations.announced(batch.images, compiles):
                found = self._jitted(found, weights, batch, state.step + number)
        new = {f"{name}.mean": one.mean for name, one in found.items()}
        new |= {f"{name}.var": one.var for name, one in found.items()}
        new = {name: new[name] for name in state.batch_stats}
        if state.average is not None:
            return dataclasses.replace(state, average=state.average | new)
        return dataclasses.replace(state, batch_stats=new)

    def _nothing(self, state: TrainState) -> dict[str, Statistics]:
        shapes = {name: state.batch_stats[f"{name}.mean"].shape for name in self._norms}

        def make() -> dict[str, Statistics]:
            return {
                name: Statistics(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(()))
                for name, shape in shapes.items()
            }

        return jax.jit(make, out_shardings=replicated(self._mesh))()
