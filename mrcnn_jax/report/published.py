"""Finds the published models that a run can be compared with, and their reported AP."""

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import SETTINGS
from mrcnn_jax.data.coco_categories import COCO, COCO_PERSON
from mrcnn_jax.data.lvis_categories import LVIS
from mrcnn_jax.runs.categories import UNUSED, Categories
from mrcnn_jax.runs.description import model_differences
from mrcnn_jax.weights.zoo_models import MODELS, Model, config_of

KINDS = ("bbox", "segm", "keypoints")  # in the order of ``Model.ap``

# What makes another network of the same layers.
_BEHAVIOUR = "model.anchor_sizes", "model.anchor_ratios", "model.roi_pooling", "model.fpn_fuse"


def published_like(config: Config, categories: Categories) -> list[Model]:
    """The models of docs/zoo.md with the run's layers, anchors and categories, the most similar first.

    They may differ in what weights do not depend on, such as the points that RoIAlign samples or the order
    of colours, and there are several if one network was published after schedules of different length.
    """
    names = _names(categories)
    of_categories = [
        model
        for model in MODELS.values()
        if names in ((_names(LVIS),) if "lvis" in model.name else (_names(COCO), _names(COCO_PERSON)))
    ]
    differences = {model.name: model_differences(config_of(model), config) for model in of_categories}
    alike = [model for model in of_categories if not any(map(_decides, differences[model.name]))]
    return sorted(alike, key=lambda model: len(differences[model.name]))


def _decides(field: str) -> bool:
    return SETTINGS[field].decides == "architecture" or field in _BEHAVIOUR


def data_of(model: Model) -> str:
    """The images on which the model's AP was reported."""
    return "LVIS v1, 19,809 images" if "lvis" in model.name else "COCO val2017, 5,000 images"


def _names(categories: Categories) -> set[str]:
    return set(categories.names) - {UNUSED}
