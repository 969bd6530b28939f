"""Mask R-CNN with Swin-T and FPN on COCO 2017 (arXiv 2103.14030), 36 epochs.

    mrcnn-jax train --config=swin --workdir=runs/swin --config.data.root=COCO \
        --config.model.backbone_weights=torchvision/swin_t --config.model.dtype=bfloat16

``--config=swin:s`` is Swin-S, for the weights torchvision/swin_s. The recipe is the paper's as MMDetection
has it (mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco), crops of half of the images included. MMDetection
reports box AP 46.0 and mask AP 41.6, and 48.2 and 43.2 for Swin-S. This config has not been trained at full
size.
"""

from mrcnn_jax.config import Config, presets


def get_config(size: str = "t") -> Config:
    return presets.adamw_3x(f"swin_{size}")
