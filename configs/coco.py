"""Mask R-CNN R50-FPN on COCO 2017, with Detectron2's 1x schedule (90,000 steps of 16 images).

    mrcnn-jax train --config=coco --workdir=runs/coco --config.data.root=COCO \
        --config.model.backbone_weights=resnet50.npz

COCO holds ``annotations/``, ``train2017/`` and ``val2017/``; resnet50.npz is torchvision's ImageNet model.
This config has not been run at full size yet; Detectron2 reports box AP 38.6 and mask AP 35.2 for its own 1x.
"""

from mrcnn_jax.config import Config


def get_config() -> Config:
    return Config()
