"""Mask R-CNN with ConvNeXt-T and FPN on COCO 2017 (arXiv 2201.03545), 36 epochs.

    mrcnn-jax train --config=convnext --workdir=runs/convnext --config.data.root=COCO \
        --config.model.backbone_weights=torchvision/convnext_tiny --config.model.dtype=bfloat16

``--config=convnext:s`` is ConvNeXt-S, for the weights torchvision/convnext_small. The recipe is the paper's
as MMDetection has it (mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco), with learning rates that are lower
towards the input and crops of half of the images. MMDetection reports box AP 46.2 and mask AP 41.7. This
config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config(size: str = "t") -> Config:
    return presets.adamw_3x(f"convnext_{size}")
