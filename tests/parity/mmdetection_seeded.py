"""Weights for MMDetection's models: ``detectron2_seeded.py``'s, under MMDetection's names."""

import re

import numpy as np

try:
    from detectron2_seeded import seeded as detectron2_seeded
except ModuleNotFoundError:  # imported by a test, not run beside it
    from tests.parity.detectron2_seeded import seeded as detectron2_seeded

# What Detectron2 calls the same layer.
_NAMES = (
    (r"^backbone\.conv1\.", "backbone.stem.conv1."),
    (r"^backbone\.patch_embed\.projection\.", "backbone.stem.conv1."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.conv2\.conv_offset\.", ".conv2_offset."),
    (r"^neck\.fpn_convs\.0\.conv\.", "backbone.fpn_output2."),
    (r"^neck\.fpn_convs\.1\.conv\.", "backbone.fpn_output3."),
    (r"^neck\.fpn_convs\.2\.conv\.", "backbone.fpn_output4."),
    (r"^neck\.fpn_convs\.3\.conv\.", "backbone.fpn_output5."),
    (r"\.rpn_cls\.", ".objectness_logits."),
    (r"\.rpn_reg\.", ".anchor_deltas."),
    (r"\.fc_cls\.", ".cls_score."),
    (r"\.fc_reg\.", ".bbox_pred."),
    (r"mask_head(\.\d)?\.upsample\.", r"mask_head\1.deconv."),
    (r"mask_head(\.\d)?\.conv_logits\.", r"\1.mask_head.predictor."),
)

# Further factors.
_GAINS = (
    # Proposals are sorted by their probabilities, which must differ in float32.
    (r"\.rpn_cls\.weight", 0.4),
    (r"^backbone\.norm\d\.weight", 0.4),
    # The sum of a Swin's residual branches stays small.
    (r"(w_msa\.proj|ffn\.layers\.1)\.weight", 0.3),
    # The means of three heads' logits should be as spread as those of one.
    (r"\.bbox_head\.\d\.fc_cls\.weight", 1.7),
)


def seeded(name: str, shape: tuple[int, ...], *, pixel_std: float = 1.0) -> np.ndarray:
    """Float32 values that depend only on the name and the shape, and on ``pixel_std`` in the first layer."""
    gain = next((gain for pattern, gain in _GAINS if re.search(pattern, name)), 1.0)
    for theirs, ours in _NAMES:
        name = re.sub(theirs, ours, name)
    return detectron2_seeded(name, shape, pixel_std=pixel_std) * np.float32(gain)
