"""An exponential moving average of the weights (EMA), which is what a run's checkpoints offer to inference.

Batch norm's running statistics are averaged with the parameters, so that they fit them, as in timm,
torchvision's recipes and d2go; MMEngine takes the latest.
"""

import jax.numpy as jnp
import optax
from jax import Array

from mrcnn_jax.models.variables import Arrays


def decay_at(step: Array, decay: float) -> Array:
    """The decay of the average in a step, counted from 0: ``decay``, or (1 + step) / (10 + step) if lower.

    With this warm-up (TensorFlow's ``ExponentialMovingAverage``) the average forgets the initial weights: it
    is over the last tenth of the steps taken, or over the last 1 / (1 - ``decay``) if these are fewer.
    """
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update_average(average: Arrays, weights: Arrays, step: Array, decay: float) -> Arrays:
    """The average after a ``step`` that made these ``weights``, by name."""
    return optax.incremental_update(weights, average, 1 - decay_at(step, decay))
