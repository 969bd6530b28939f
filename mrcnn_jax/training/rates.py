"""The learning rate and the weight decay of each array, as factors of those of ``TrainConfig``."""

from collections.abc import Iterable

from mrcnn_jax.config import TrainConfig
from mrcnn_jax.training.patterns import check_patterns, matched


def rate_factors(names: Iterable[str], config: TrainConfig) -> dict[str, float]:
    """The factor of the learning rate of each trained array, 1 where no pattern matches.

    Of several patterns of ``config.rate_factors`` that match, the last one decides. Raises ValueError for a
    pattern that matches no name.
    """
    return _factors(list(names), config.rate_factors, "train.rate_factors")


def weight_decay_factors(names: Iterable[str], config: TrainConfig) -> dict[str, float]:
    """The factor of the weight decay of each trained array, likewise by ``config.weight_decay_factors``."""
    return _factors(list(names), config.weight_decay_factors, "train.weight_decay_factors")


def _factors(names: list[str], patterns: tuple[tuple[str, float], ...], field: str) -> dict[str, float]:
    check_patterns(field, [pattern for pattern, _ in patterns], names, what="trained array")
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in patterns:
        factors |= dict.fromkeys(matched(pattern, names), factor)
    return factors
