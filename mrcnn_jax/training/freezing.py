"""Arrays that training leaves as they are, chosen by name (``train.frozen``).

They have no gradient and no optimizer state. A batch norm whose statistics are frozen normalises by them, as
in inference (Detectron2's frozen batch norm; MMDetection's ``norm_eval``).
"""

import dataclasses

from flax import nnx

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import Arrays, Blueprint, arrays_of, name_of
from mrcnn_jax.training.patterns import check_patterns, matched


def freeze(blueprint: Blueprint, config: TrainConfig) -> Blueprint:
    """The blueprint whose ``frozen_layers`` also have the arrays that ``config.frozen`` matches.

    Raises ValueError for a pattern that matches no array of the model, and if nothing is left to train.
    """
    if not config.frozen:
        return blueprint
    names = blueprint.shapes()
    check_patterns("train.frozen", config.frozen, names, what="array of the model")
    chosen = {name for pattern in config.frozen for name in matched(pattern, names)}
    frozen = dataclasses.replace(blueprint, frozen_layers=blueprint.frozen_layers | chosen)
    if not frozen.split(names)[0]:
        raise ValueError(f"train.frozen is {config.frozen!r}; it leaves no array of the model to train")
    return frozen


def hold_statistics(model: MaskRCNN, frozen: Arrays) -> None:
    """Makes the batch norms of a model in training normalise by their statistics if these are ``frozen``."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm) and f"{name_of(path)}.mean" in frozen:
            module.eval()


def statistics_of(model: MaskRCNN, batch_stats: Arrays) -> Arrays:
    """The model's running statistics after a batch, of those names that ``batch_stats`` has."""
    found = arrays_of(model, nnx.BatchStat)
    return {name: found[name] for name in batch_stats}
