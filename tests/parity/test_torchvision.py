"""Our narrow models against torchvision's results, stored by ``torchvision_peer.py --tiny``."""

import functools

import numpy as np
import pytest

from mrcnn_jax.config import presets
from tests.parity import narrow
from tests.parity.measure import TORCHVISION
from tests.parity.seeded import TRAINED, seeded


def make_config(kind: str):
    """torchvision's settings for the model that ``torchvision_models.build_tiny`` makes."""
    config = presets.torchvision()
    narrow.shrink(config, kind)
    model, train = config.model, config.train
    model.backbone_depth = 50 if kind == "mask" else 18
    model.backbone_norm_epsilon = 0.0 if kind != "v2" else 1e-5
    model.anchor_sizes = (8.0, 16.0, 32.0, 64.0, 128.0)
    train.rpn_samples, train.roi_samples = 8000, 512
    if kind == "v2":
        model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "batch"
        model.backbone_frozen_stages = 0
        model.rpn_convs = model.box_convs = 2
        model.box_fcs = 1
    return config


def stages_as_theirs(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our stages in torchvision's format: deltas for background, too, and proposals' probabilities."""
    return found | {
        "box_deltas": np.pad(found["box_deltas"], [(0, 0), (1, 0), (0, 0)], constant_values=np.nan),
        "proposals/scores": 1 / (1 + np.exp(-found["proposals/scores"])),
    }


PEER = narrow.Peer(
    system=TORCHVISION,
    fixture=narrow.FIXTURES / "torchvision_models.npz",
    seeded=seeded,
    stages_as_theirs=stages_as_theirs,
    trained=TRAINED,
    coordinates=np.float32,
)


KINDS = ("mask", "keypoint", "v2")


@functools.cache
def model_of(kind: str) -> narrow.Model:
    return narrow.Model(PEER, kind, make_config(kind))


@pytest.mark.parametrize("kind", narrow.quick(KINDS, "v2"))
def test_every_stage(kind: str):
    narrow.check_stages(model_of(kind))


# A program of the stages above.
@pytest.mark.parametrize("kind", narrow.quick(KINDS, "mask"))
def test_detections(kind: str):
    narrow.check_detections(model_of(kind))


# The quick one is furthest from Detectron2's; its parts are in every kind or tested by hand.
@pytest.mark.parametrize("kind", narrow.quick(KINDS, "v2"))
def test_losses_gradients_and_steps(kind: str):
    narrow.check_training(model_of(kind))
