"""Weights for other categories: the heads' outputs for categories of the same name are kept."""

from collections import Counter
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import Arrays
from mrcnn_jax.runs.categories import UNUSED, Categories


def shared_names(known: Categories, new: Categories) -> tuple[str, ...]:
    """The names that are in both, in the order of ``new``.

    Names must be equal to the letter. ``UNUSED`` and names that are used more than once have no counterpart.
    """
    before, after = Counter(known.names), Counter(new.names)
    return tuple(name for name in new.names if name != UNUSED and before[name] == after[name] == 1)


def layers_per_category(model: ModelConfig) -> dict[str, int]:
    """The heads' layers with outputs for each category: 1 if those of the background come first, else 0."""
    layers = {"box_head.cls_score": 1} if model.box else {}
    layers |= {f"cascade_heads.{number}.cls_score": 1 for number in range(len(model.box_cascade))}
    if model.box and not model.box_agnostic:
        layers["box_head.bbox_pred"] = 0
    if model.mask and not model.mask_agnostic:
        name = "mask_fc_logits" if model.mask_fcs else "mask_fcn_logits"
        heads = ["mask_head"]
        heads += [
            f"cascade_mask_heads.{number}" for number in range(len(model.box_cascade) * model.mask_cascade)
        ]
        layers |= {f"{head}.{name}": int(model.mask_loss == "softmax") for head in heads}
    return layers


def with_shared_outputs(
    drawn: Mapping[str, Array],
    weights: Mapping[str, Array],
    *,
    model: ModelConfig,
    known: Categories,
    new: Categories,
) -> Arrays:
    """The arrays of ``layers_per_category`` in ``drawn``, with ``weights`` for the categories of both.

    Args:
        drawn: Arrays of a model of the ``new`` categories, by name, freshly initialised.
        weights: Those of a model of the ``known`` categories.

    The outputs of the background are taken from ``weights``, too. All other arrays are left out.
    """
    before = {name: index for index, name in enumerate(known.names)}
    after = {name: index for index, name in enumerate(new.names)}
    shared = shared_names(known, new)
    made = {}
    for layer, background in layers_per_category(model).items():
        for name in (f"{layer}.kernel", f"{layer}.bias"):
            array, source = np.array(drawn[name]), np.asarray(weights[name])
            each = array.shape[-1] // (background + len(new))
            array[..., : background * each] = source[..., : background * each]
            for category in shared:
                to, of = (each * (background + index[category]) for index in (after, before))
                array[..., to : to + each] = source[..., of : of + each]
            made[name] = jnp.asarray(array)
    return made
