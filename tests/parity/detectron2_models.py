"""Detectron2's models with seeded weights, for ``detectron2_peer.py``.

The weights depend on names, shapes and the numbers below alone. They are no trained weights, but a model with
them behaves like a trained one where that matters to a comparison: activations stay near 1, every image has
tens of detections of many categories with spread scores, masks have both signs and keypoint maps have peaks.
"""

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

# The first pattern found in "name shape" gives the factor of a parameter's values, which are otherwise of the
# size that keeps activations near 1.
GAINS = (
    (r"conv3\.norm\.weight", 0.3),  # the end of a residual branch, so that sums of 33 blocks stay small
    (r"fpn_output[23]\.weight", 0.15),  # near positions differ most here; coarser levels have objects, too
    (r"fpn_output4\.weight", 0.4),
    (r"fpn_output5\.weight", 0.6),
    (r"objectness_logits\.weight", 6.0),
    (r"anchor_deltas\.weight", 0.3),
    (r"cls_score\.weight .*2048", 6.0),  # of means over 49 positions (C4)
    (r"cls_score\.weight", 3.5),
    (r"bbox_pred\.weight", 4.0),
    (r"mask_head\.predictor\.weight", 6.0),
    (r"score_lowres\.weight", 10.0),
)
# What the background is ahead of other categories by, so that most regions have no score above .05.
BACKGROUND, BACKGROUND_OF_ONE = 6.5, 4.0  # ahead of many categories, and of a single one


def load_config(source: Path, model: str, weights: Path, options: dict[str, Any]) -> Any:
    """The configuration ``configs/<model>.yaml`` of Detectron2's source, for this CPU, with changed options.

    Detectron2's compiled extension is not needed: what these models take from it comes with torchvision.
    """
    sys.path.insert(0, str(source))
    from detectron2.config import get_cfg

    config = get_cfg()
    config.merge_from_file(str(source / "configs" / f"{model}.yaml"))
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = str(weights)
    for name, value in options.items():
        config.merge_from_list([name, value])
    return config


def write_weights(config: Any, path: Path) -> None:
    """Writes seeded weights as files of Detectron2's model zoo are: the anchors of a cell are among them."""
    from detectron2.modeling import build_model

    model = build_model(config)
    pixel_scale = float(np.mean(config.MODEL.PIXEL_STD)) / 60  # pixels less their mean are of this size
    arrays = {}
    for name, value in model.state_dict().items():
        arrays[name] = seeded(name, tuple(value.shape))
        if name.endswith("stem.conv1.weight"):
            arrays[name] *= np.float32(pixel_scale)
    for level, anchors in enumerate(model.proposal_generator.anchor_generator.cell_anchors):
        arrays[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors.numpy()
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, file, protocol=2)


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values that depend on the name and the shape alone, float32."""
    values = np.random.default_rng(list(name.encode())).random(shape, dtype=np.float32)
    gain = np.float32(next((gain for pattern, gain in GAINS if re.search(pattern, f"{name} {shape}")), 1.0))
    if name.endswith(("norm.running_var", "norm.weight")):
        return gain * (values + np.float32(0.5))
    values -= np.float32(0.5)
    if len(shape) == 1:
        values *= np.float32(0.2)
        if name.endswith("cls_score.bias"):
            values[-1] += np.float32(BACKGROUND if shape[0] > 2 else BACKGROUND_OF_ONE)
        if name == "roi_heads.res5.2.conv3.norm.bias":
            values -= np.float32(1)  # few channels are above 0, and others in every region (C4)
        return values
    axes = tuple(range(1, len(shape)))
    taps = 1.0
    if "deconv" in name or "score_lowres" in name:  # [inputs outputs k k], stride 2: k^2 / 4 taps an output
        axes, taps = (0, 2, 3), 0.25
    values -= values.mean(axis=axes, keepdims=True)  # what all inputs share must not drown differences
    inputs = taps * np.prod([shape[axis] for axis in axes])
    return gain * values * np.float32(np.sqrt(24 / inputs))
