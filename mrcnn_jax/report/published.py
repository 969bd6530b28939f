"""Finds the published models that a run can be compared with, and their reported AP."""

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco_categories import COCO, COCO_PERSON
from mrcnn_jax.data.lvis_categories import LVIS
from mrcnn_jax.runs.categories import UNUSED, Categories
from mrcnn_jax.runs.description import model_differences
from mrcnn_jax.weights.zoo_models import MODELS, Model, config_of

KINDS = ("bbox", "segm", "keypoints")  # in the order of ``Model.ap``


def published_like(config: Config, categories: Categories) -> list[Model]:
    """The models of docs/zoo.md with the run's layers and categories, whatever they were trained with.

    So there are several if one network was published after schedules of different length.
    """
    names = _names(categories)
    return [
        model
        for model in MODELS.values()
        if names in ((_names(LVIS),) if "lvis" in model.name else (_names(COCO), _names(COCO_PERSON)))
        and not model_differences(config_of(model), config)
    ]


def data_of(model: Model) -> str:
    """The images on which the model's AP was reported."""
    return "LVIS v1, 19,809 images" if "lvis" in model.name else "COCO val2017, 5,000 images"


def _names(categories: Categories) -> set[str]:
    return set(categories.names) - {UNUSED}
