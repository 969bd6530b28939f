"""Our narrow models against Detectron2's results, stored by ``detectron2_peer.py --tiny``."""

import dataclasses
import functools

import numpy as np
import pytest

from mrcnn_jax.config import Config, presets
from mrcnn_jax.training.rates import rate_factors, weight_decay_factors
from mrcnn_jax.training.step import make_state
from tests.parity import narrow
from tests.parity.detectron2_seeded import seeded
from tests.parity.measure import DETECTRON2
from tests.parity.seeded import AUGMENTED, TRAINED_ALIKE


def make_config(kind: str):
    """Detectron2's settings for the model that ``detectron2_models.build_tiny`` makes."""
    config = presets.detectron2()
    if kind == "c4":
        presets.as_c4(config)
    narrow.shrink(config, kind)
    model, train = config.model, config.train
    model.anchor_sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    train.rpn_samples, train.roi_samples = 4000, 256
    if kind in ("c4", "c5", "dc5"):
        model.features = kind
        model.padding_multiple = 1
        model.anchor_sizes = (16.0, 32.0, 64.0)
    if kind == "c4":
        model.mask_convs, model.mask_channels = 0, 8
        train.rpn_post_nms = 60
    if kind == "keypoint":
        train.box_beta = 0.5
    if kind == "regnet":
        model.backbone, model.backbone_stride_in_1x1 = "regnety_4gf", False
    if kind == "vit":
        config = as_vitdet(config)
        train.rpn_samples, train.rpn_pre_nms, train.rpn_post_nms = 17_000, 40, 40
    if kind == "deform":
        model.backbone_deformable = "plain"
    if kind == "giou":
        train.rpn_box_loss = train.box_loss = "giou"
        train.rpn_box_loss_weight, train.box_loss_weight = 2.0, 10.0
    if kind == "cascade":
        presets.as_cascade(config)
        train.cascade_positive_ious = (0.45, 0.55)
        train.rpn_post_nms = 200
    if kind == "agnostic":
        model.box_agnostic = model.mask_agnostic = True
    return config


def as_vitdet(config: Config) -> Config:
    """A narrow model's config with the layers of ViTDet, on the canvas of ``narrow_vitdet``."""
    model = dataclasses.replace(
        presets.vitdet("b").model,
        **{
            name: getattr(config.model, name)
            for name in dataclasses.asdict(config.model)
            if name.startswith("pixel_") or name.endswith(("channels", "_width", "_size", "_sizes"))
        },
    )
    model.padding_multiple = 256
    model.mask_convs = config.model.mask_convs
    model.backbone_drop_path = 0.0
    config.data.canvases = ((256, 256),)
    return dataclasses.replace(config, model=model)


def stages_as_theirs(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our stages in Detectron2's format, with the background last."""
    return found | {"box_logits": np.roll(found["box_logits"], -1, axis=1)}


PEER = narrow.Peer(
    system=DETECTRON2,
    fixture=narrow.FIXTURES / "detectron2_models.npz",
    seeded=seeded,
    stages_as_theirs=stages_as_theirs,
    trained=TRAINED_ALIKE,
    coordinates=np.float64,
)


KINDS = ("mask", "keypoint", "c4", "c5", "dc5", "agnostic", "cascade", "regnet", "vit", "deform")


@functools.cache
def model_of(kind: str) -> narrow.Model:
    return narrow.Model(PEER, kind, make_config(kind))


@pytest.mark.parametrize("kind", narrow.quick(KINDS, "keypoint"))
def test_every_stage(kind: str):
    narrow.check_stages(model_of(kind))


# A program of the stages above.
@pytest.mark.parametrize("kind", narrow.quick(KINDS, "keypoint"))
def test_detections(kind: str):
    narrow.check_detections(model_of(kind))


@pytest.mark.slow  # compiles two programs for each of three scales
@pytest.mark.parametrize("kind", ["mask", "c4"])
def test_detections_with_test_time_augmentation(kind: str):
    with np.load(narrow.FIXTURES / "detectron2_augmented.npz") as archive:
        theirs = narrow.starting_with(f"{kind}/", archive)
    narrow.check_detections(model_of(kind), theirs, **AUGMENTED)


def test_rates_and_decays_of_vitdets_recipe():
    model = model_of("vit")
    train = presets.vitdet("b").train
    trained = make_state(model.blueprint, model.weights, model.config).params
    rates, decays = rate_factors(trained, train), weight_decay_factors(trained, train)
    layouts = DETECTRON2.layouts(model.blueprint)
    theirs = narrow.starting_with("rates/", model.theirs)
    assert {layouts[name].name for name in trained} == set(theirs)
    assert (train.weight_decay, train.weight_decay_norm) == (0.1, 0.1)
    for name in trained:
        wanted = theirs[layouts[name].name]
        np.testing.assert_allclose([rates[name], decays[name]], wanted, rtol=1e-6, err_msg=name)


# In the quick tests, test_torchvision.py trains the model that is furthest from these.
@pytest.mark.slow
@pytest.mark.parametrize("kind", (*KINDS, "giou"))
def test_losses_gradients_and_steps(kind: str):
    narrow.check_training(model_of(kind))
