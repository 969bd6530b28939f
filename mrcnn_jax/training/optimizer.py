"""The optimizer, SGD with momentum or AdamW, and the learning rate schedule."""

import dataclasses
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.training.rates import rate_factors, weight_decay_factors


def with_steps(config: Config, *, images: int | float) -> Config:
    """``config`` with the steps of ``train.epochs`` passes over so many images; as it is if that is 0.

    ``images`` counts an image as often as it is in a pass on average (``data.repeat_threshold``).
    """
    train = config.train
    if not train.epochs:
        return config
    steps = max(1, math.ceil(train.epochs * images / train.batch_size))
    return dataclasses.replace(config, train=dataclasses.replace(train, steps=steps))


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate by step: linear or constant warm-up times step decay or cosine decay.

    The decay counts from step 0 and warm-up scales it (as in Detectron2), so the two may overlap.
    """
    match config.schedule:
        case "step":
            boundaries = {step: config.decay_factor for step in config.decay_steps}
            decay = optax.piecewise_constant_schedule(config.learning_rate, boundaries)
        case "cosine":
            decay = optax.cosine_decay_schedule(config.learning_rate, config.steps, config.cosine_end)
        case _:
            raise ValueError(f"train.schedule is {config.schedule!r}; it must be 'step' or 'cosine'")

    def schedule(step: ArrayLike) -> Array:
        done = jnp.minimum(step / max(config.warmup_steps, 1), 1.0) if config.warmup_steps else 1.0
        if config.warmup == "constant":
            done = jnp.floor(done)
        return jnp.asarray(decay(step) * (config.warmup_factor * (1.0 - done) + done))

    return schedule


def make_optimizer(config: TrainConfig, names: Iterable[str]) -> optax.GradientTransformation:
    """The optimizer that ``config.optimizer`` names, as torch defines it, after clipping.

    "sgd" adds weight decay to the gradient, then applies momentum and the learning rate. "adamw" (arXiv
    1711.05101) keeps weight decay out of both moments: the learning rate scales it together with Adam's step.

    Args:
        names: names of the trained parameters. A layer with a ``scale`` is a normalisation layer, and decays
            by ``weight_decay_norm``.

    Both the rate and the decay of an array are multiplied by its factor (``rates.py``). Raises ValueError for
    any other optimizer, and for a pattern of names that matches no parameter.
    """
    names = dict.fromkeys(names)  # in their order
    is_norm = {name: f"{name.rpartition('.')[0]}.scale" in names for name in names}
    factors = weight_decay_factors(names, config)
    decay = [
        optax.add_decayed_weights(
            value * factor, {name: is_norm[name] == norm and factors[name] == factor for name in names}
        )
        for norm, value in ((False, config.weight_decay), (True, config.weight_decay_norm))
        for factor in sorted({*factors.values()})
    ]
    learning_rate = [
        optax.scale_by_learning_rate(make_schedule(config)),
        *_scale(rate_factors(names, config)),
    ]
    match config.optimizer:
        case "sgd":
            return optax.chain(
                _clip(config), *decay, optax.trace(config.momentum, config.nesterov), *learning_rate
            )
        case "adamw":
            adam = optax.scale_by_adam(config.momentum, config.adam_b2)
            return optax.chain(_clip(config), adam, *decay, *learning_rate)
        case _:
            raise ValueError(f"train.optimizer is {config.optimizer!r}; it must be 'sgd' or 'adamw'")


def _clip(config: TrainConfig) -> optax.GradientTransformation:
    """The limits of the whole gradient, then of each array's, then of each number."""
    limits = []
    if config.clip_norm:
        limits.append(optax.clip_by_global_norm(config.clip_norm))
    if largest := config.clip_array_norm:

        def shorten(x: Array) -> Array:  # as torch.nn.utils.clip_grad_norm_
            return x * jnp.minimum(1.0, largest / (jnp.linalg.norm(x) + 1e-6))

        limits.append(optax.stateless(lambda gradient, _: jax.tree.map(shorten, gradient)))
    if config.clip_value:
        limits.append(optax.clip(config.clip_value))
    return optax.chain(*limits) if limits else optax.identity()


def _scale(factors: dict[str, float]) -> list[optax.GradientTransformation]:
    """The multiplication of each array's update by its factor; nothing if all are 1."""
    if all(factor == 1 for factor in factors.values()):
        return []

    def scale(updates: dict[str, Array], _: optax.Params) -> dict[str, Array]:
        return {name: x if factors[name] == 1 else factors[name] * x for name, x in updates.items()}

    return [optax.stateless(scale)]
