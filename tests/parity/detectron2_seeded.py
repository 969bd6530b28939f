"""Weights for Detectron2's models, made by a formula in NumPy, so that no file needs to store them.

They are not trained, but the model behaves like a trained one where that matters for a comparison:
activations stay near 1, every image has tens of detections of many categories with spread scores, masks have
both signs, and keypoint maps have peaks.
"""

import re

import numpy as np

# The first pattern that matches "name shape" scales a parameter's values, which by default keep activations
# near 1.
GAINS = (
    (
        r"conv3\.norm\.weight|c_bn\.weight",
        0.3,
    ),  # the last norm of a residual branch, so that the sum of 33 blocks stays small
    (r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.weight", 0.3),  # likewise
    (r"attn\.(qkv\.weight|rel_pos)", 0.3),  # so that attention is smooth
    (r"pos_embed", 30.0),
    (r"simfp_[23]\.\d\.norm\.weight", 0.2),  # as fpn_output below
    (r"simfp_[45]\.\d\.norm\.weight", 0.4),
    (r"conv2_offset\.weight", 0.2),  # so that a step's rounding does not become another step's offsets
    (r"fpn_output[23]\.weight", 0.15),  # adjacent positions differ most here; other levels need objects, too
    (r"fpn_output4\.weight", 0.4),
    (r"fpn_output5\.weight", 0.6),
    (r"objectness_logits\.weight", 6.0),
    (r"anchor_deltas\.weight", 0.3),
    (r"cls_score\.weight .*(256|2048)", 6.0),  # its input is a mean over 49 positions (C4)
    (r"cls_score\.weight", 3.5),
    (r"bbox_pred\.weight", 4.0),
    (r"mask_head\.predictor\.weight", 6.0),
    (r"score_lowres\.weight", 10.0),
)
# The background's head start by number of categories, so that most regions have no score above .05.
BACKGROUND = {1: 4.0, 5: 5.0, 8: 5.3, 20: 5.8, 80: 6.5, 1203: 9.0}


def seeded(name: str, shape: tuple[int, ...], *, pixel_std: float = 1.0) -> np.ndarray:
    """Float32 values that depend only on the name and the shape.

    Those of the first layer also depend on ``pixel_std``: its input, pixels less their mean, is of the size
    60 / ``pixel_std``.
    """
    values = np.random.default_rng(list(name.encode())).random(shape, dtype=np.float32)
    gain = np.float32(next((gain for pattern, gain in GAINS if re.search(pattern, f"{name} {shape}")), 1.0))
    if name.endswith(("stem.conv1.weight", "stem.conv.weight", "patch_embed.proj.weight")):
        gain *= np.float32(pixel_std / 60)
    if re.search(r"(norm|bn)\.running_var$|(norm\d?|bn|simfp_2\.1)\.weight$", name):
        return gain * (values + np.float32(0.5))
    values -= np.float32(0.5)
    if len(shape) == 1:
        values *= np.float32(0.2)
        if name.endswith("cls_score.bias"):
            values[-1] += np.float32(BACKGROUND[shape[0] - 1])
        if name == "roi_heads.res5.2.conv3.norm.bias":
            values -= np.float32(1)  # so that few channels are above 0, different ones in each region (C4)
        return values
    axes = tuple(range(1, len(shape)))
    taps = 1.0
    if "deconv" in name or "score_lowres" in name:  # [inputs outputs k k], stride 2: k^2 / 4 taps an output
        axes, taps = (0, 2, 3), 0.25
    values -= values.mean(axis=axes, keepdims=True)  # what all inputs share must not mask differences
    inputs = taps * np.prod([shape[axis] for axis in axes])
    return gain * values * np.float32(np.sqrt(24 / inputs))
