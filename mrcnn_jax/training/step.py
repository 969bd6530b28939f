"""One training step, a pure function of state and batch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array
from jax.sharding import Mesh

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import batch_sharding, replicated
from mrcnn_jax.models.folding import fold_norms
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options
from mrcnn_jax.runtime.heap import trim_heap
from mrcnn_jax.runtime.platforms import platform
from mrcnn_jax.training.accumulation import accumulate_gradients
from mrcnn_jax.training.averaging import update_average
from mrcnn_jax.training.freezing import freeze, hold_statistics, statistics_of
from mrcnn_jax.training.objective import compute_losses
from mrcnn_jax.training.optimizer import make_optimizer, make_schedule
from mrcnn_jax.types import Batch

Metrics = dict[str, Array]


@struct.dataclass
class TrainState:
    """Everything that a step changes, and the frozen arrays that it reads."""

    step: Array  # int32: steps taken
    params: Arrays
    frozen: Arrays
    batch_stats: Arrays
    opt_state: optax.OptState
    key: Array  # made from the run's seed; each step folds in its number
    average: Arrays | None = None  # of params and batch_stats, if train.ema_decay is set

    def weights(self) -> Arrays:
        """Every array of the model, by name, for inference: the averages of those that have one."""
        return self.params | self.frozen | self.batch_stats | (self.average or {})


def make_state(blueprint: Blueprint, weights: Arrays, config: Config) -> TrainState:
    """The state before the first step. Raises ValueError as ``freeze`` and ``make_optimizer`` do."""
    params, frozen, batch_stats = freeze(blueprint, config.train).split(weights)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen=frozen,
        batch_stats=batch_stats,
        opt_state=make_optimizer(config.train, params).init(params),
        key=jax.random.key(config.train.seed),
        # Copies, because a step is given the memory of all arrays of the state.
        average=jax.tree.map(jnp.copy, params | batch_stats) if config.train.ema_decay else None,
    )


def training_model(blueprint: Blueprint, weights: Arrays, frozen: Arrays) -> MaskRCNN:
    """The model in training, of ``weights`` that include the ``frozen`` ones."""
    model = blueprint.build(weights)
    model.train()
    hold_statistics(model, frozen)
    if platform() != "cpu":
        fold_norms(model, only_frozen=True)
    return model


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    blueprint: Blueprint,
    config: Config,
    image_counts: np.ndarray | None = None,
) -> tuple[TrainState, Metrics]:
    """The state after one optimizer step on ``batch``, with its losses, gradient norm and learning rate.

    ``image_counts [C]`` are those of ``compute_losses``, the same in every step.
    """
    counts = None if image_counts is None else jnp.asarray(image_counts, jnp.float32)
    key = jax.random.fold_in(state.key, state.step)

    def build(params: Arrays, batch_stats: Arrays) -> MaskRCNN:
        return training_model(blueprint, params | state.frozen | batch_stats, state.frozen)

    def loss_fn(params: Arrays) -> tuple[Array, tuple[Metrics, Arrays]]:
        model = build(params, state.batch_stats)
        losses = compute_losses(model, batch, key, config, counts)
        return sum(losses.values(), jnp.zeros(())), (losses, statistics_of(model, state.batch_stats))

    if config.train.accumulate == 1:
        (loss, (losses, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    else:
        losses, batch_stats, gradients = accumulate_gradients(
            build, state.params, state.batch_stats, batch, key, config, counts
        )
        loss = sum(losses.values(), jnp.zeros(()))
    with jax.named_scope("optimizer"):
        optimizer = make_optimizer(config.train, state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = update_average(average, params | batch_stats, state.step, config.train.ema_decay)
    metrics = losses | {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradients),
        "lr": make_schedule(config.train)(state.step),
    }
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        average=average,
    )
    return new_state, metrics


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """``train_step`` compiled for a mesh; ``jitted`` is the function that it calls."""

    jitted: jax.stages.Wrapped
    mesh: Mesh
    compilations: CompilationTracker

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        compiles = self.compilations.record(batch.images, batch)
        with jax.set_mesh(self.mesh), self.compilations.announced(batch.images, compiles):
            results = self.jitted(state, batch)
        if compiles:
            trim_heap()
        return results

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The lowered program for arguments of these shapes, which may be ``jax.ShapeDtypeStruct``."""
        with jax.set_mesh(self.mesh):
            return self.jitted.lower(state, batch)


def compile_step(
    blueprint: Blueprint, config: Config, mesh: Mesh, image_counts: np.ndarray | None = None
) -> CompiledStep:
    """``train_step`` jitted for ``mesh``: the state is replicated and donated, the batch is sharded.

    It compiles once per canvas, and warns about any other compilation (see ``compilations``).

    Raises:
        ValueError: the batch size is not divisible by the number of devices, or of groups of devices that
            share an image, times the number of parts of a batch; or a pattern of array names in
            ``config.train`` matches nothing.
    """
    jax.eval_shape(partial(make_state, blueprint, config=config), blueprint.shapes())  # for its errors
    groups, shared_by, parts = mesh.shape["data"], mesh.shape["spatial"], config.train.accumulate
    if config.train.batch_size % (groups * parts):
        divisor = "devices" if shared_by == 1 else f"groups of {shared_by} devices that share an image"
        times = f", times train.accumulate ({parts})" if parts > 1 else ""
        raise ValueError(
            f"train.batch_size ({config.train.batch_size}) must be divisible by "
            f"the number of {divisor} ({groups}){times}"
        )
    jitted = jax.jit(
        partial(train_step, blueprint=blueprint, config=config, image_counts=image_counts),
        in_shardings=(replicated(mesh), batch_sharding(mesh)),
        out_shardings=(replicated(mesh), replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
    return CompiledStep(jitted, mesh, CompilationTracker("the training step", config.data.canvases))
