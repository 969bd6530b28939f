"""Detectron2's Mask R-CNN with ViT-L (ViTDet, arXiv 2203.16527), 100 epochs.

    mrcnn-jax train --config=detectron2/mask_rcnn_vitdet_l_100ep --workdir=runs/vitdet \
        --config.model.backbone_weights=detectron2/MAE/vit_l --config.model.dtype=bfloat16 \
        --config.data.root=COCO
    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_vitdet_l_100ep \
        --input=model_final.pkl --workdir=runs/converted

model_final.pkl is mask_rcnn_vitdet_l_100ep of Detectron2's project ViTDet, which
reports box AP 55.5 and mask AP 49.2. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    return presets.vitdet("l")
