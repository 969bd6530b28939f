"""Our narrow models against MMDetection's results, stored by ``mmdetection_peer.py --tiny``."""

import dataclasses
import functools

import numpy as np
import pytest

from mrcnn_jax.config import presets
from tests.parity import narrow
from tests.parity.measure import MMDETECTION
from tests.parity.mmdetection_seeded import seeded


def make_config(kind: str):
    """MMDetection's settings for the model that ``mmdetection_models.tiny_config`` describes."""
    config = presets.mmdetection("caffe" if kind == "mask" else "pytorch")
    narrow.shrink(config, kind)
    model = config.model
    model.anchor_sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    model.mask = kind != "faster"
    if kind == "faster":
        model.backbone_groups, model.backbone_group_width = 4, 16
    if kind == "deform":
        model.backbone_deformable = "modulated"
    if kind == "swin":
        model.backbone, model.backbone_frozen_stages = "swin_t", 0
    if kind == "cascade":
        presets.as_mmdetection_cascade(config)
    return config


def stages_as_theirs(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our stages in MMDetection's format: the background last, and proposals' scores as probabilities."""
    scores = 1 / (1 + np.exp(-found["proposals/scores"]))
    return found | {"box_logits": np.roll(found["box_logits"], -1, axis=1), "proposals/scores": scores}


PEER = narrow.Peer(
    system=MMDETECTION,
    fixture=narrow.FIXTURES / "mmdetection_models.npz",
    seeded=seeded,
    stages_as_theirs=stages_as_theirs,
    trained=(),
    coordinates=np.float64,
)
KINDS = ("mask", "cascade", "deform", "swin", "faster")


@functools.cache
def model_of(kind: str) -> narrow.Model:
    config = make_config(kind)
    weights = functools.partial(seeded, pixel_std=config.model.pixel_std[0])
    return narrow.Model(dataclasses.replace(PEER, seeded=weights), kind, config)


@pytest.mark.parametrize("kind", narrow.quick(KINDS, "faster"))
def test_every_stage(kind: str):
    narrow.check_stages(model_of(kind))


@pytest.mark.parametrize("kind", narrow.quick(KINDS, "faster"))
def test_detections(kind: str):
    narrow.check_detections(model_of(kind))
