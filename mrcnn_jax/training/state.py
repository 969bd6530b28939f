"""The state that training begins with: new, from weights, or restored from a checkpoint."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from mrcnn_jax.config import Config
from mrcnn_jax.distributed import hosts
from mrcnn_jax.distributed.agreement import check_same_arrays
from mrcnn_jax.distributed.sharding import replicate, replicated
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import how_to_start_from_its_weights
from mrcnn_jax.training.step import TrainState, make_state
from mrcnn_jax.weights.backbone import expected_input, load_backbone
from mrcnn_jax.weights.channels import describe_new_channels

_NAMED = 8  # arrays


def first_state(
    checkpoints: Checkpoints,
    latest: int | None,
    blueprint: Blueprint,
    config: Config,
    mesh: Mesh,
    workdir: Path,
) -> TrainState:
    """The state before the first step, with new weights or those of the checkpoint ``latest``."""
    if latest is None:
        with hosts.fail_together():
            weights = initial_weights(blueprint, config)
        check_same_arrays("initial weights", *weights.values())
        weights = replicate(weights, mesh)
    else:
        weights = _first_weights(checkpoints, latest, blueprint, replicated(mesh), workdir)
    with hosts.fail_together():
        if line := describe_new_channels(weights, blueprint):
            hosts.say(line)
    begin = partial(make_state, blueprint, config=config)
    return jax.jit(begin, out_shardings=replicated(mesh))(weights)


def initial_weights(blueprint: Blueprint, config: Config) -> Arrays:
    """Random weights, except for the backbone's if the config names a file for them."""
    weights = blueprint.draw(jax.random.key(config.train.seed))
    path, backbone = config.model.backbone_weights, Arrays()
    if path:
        backbone, absent = load_backbone(path, blueprint)
        weights |= backbone
        hosts.say(f"backbone from {path}, assumed to expect {expected_input(config.model)}")
        if absent:
            hosts.say(f"not in that file, so trained from scratch: {', '.join(absent)}")
    elif config.model.backbone_frozen_stages:
        hosts.say(
            "model.backbone_weights is not set: the backbone is random, and its frozen stages stay random "
            f"(model.backbone_frozen_stages is {config.model.backbone_frozen_stages})"
        )
    random = tuple(name for name in weights if name in blueprint.frozen_layers and name not in backbone)
    if config.train.frozen and random:
        named = ", ".join(random[:_NAMED]) + (", ..." if len(random) > _NAMED else "")
        hosts.say(f"these arrays stay random, as they are frozen (train.frozen): {named}")
    return weights


def _first_weights(
    checkpoints: Checkpoints, step: int, blueprint: Blueprint, sharding: NamedSharding, workdir: Path
) -> Arrays:
    """The weights that the run in ``workdir`` starts from: its checkpoint of step 0."""
    if step:
        raise ValueError(
            f"{workdir / 'checkpoints' / str(step)} has no folder 'training', so the run cannot go on; "
            + how_to_start_from_its_weights(workdir)
        )
    weights, _ = checkpoints.restore(step, _with_sharding(blueprint.shapes(), sharding))
    hosts.say(f"beginning from the weights in {workdir}")
    return weights


def training_items(state: TrainState) -> dict[str, object]:
    """What a checkpoint holds besides the weights. The run's key is made from its seed."""
    items = {"step": state.step, "opt_state": state.opt_state}
    if state.average is not None:  # which the weights are
        items |= {"params": state.params, "batch_stats": state.batch_stats}
    return items


def restore_state(
    checkpoints: Checkpoints, step: int, blueprint: Blueprint, config: Config, mesh: Mesh
) -> TrainState:
    """The state saved after ``step`` steps."""
    sharding = replicated(mesh)
    like = jax.eval_shape(lambda weights: make_state(blueprint, weights, config), blueprint.shapes())
    weights, training = checkpoints.restore(
        step, _with_sharding(blueprint.shapes(), sharding), _with_sharding(training_items(like), sharding)
    )
    params, frozen, batch_stats = blueprint.split(weights)
    average = None
    if like.average is not None:
        average = params | batch_stats
        params, batch_stats = training["params"], training["batch_stats"]
    return TrainState(
        step=training["step"],
        params=params,
        frozen=frozen,
        batch_stats=batch_stats,
        opt_state=training["opt_state"],
        key=jax.jit(lambda: jax.random.key(config.train.seed), out_shardings=sharding)(),
        average=average,
    )


def _with_sharding(shapes: Any, sharding: NamedSharding) -> Any:
    """``shapes``, a pytree, with a sharding for every array."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
