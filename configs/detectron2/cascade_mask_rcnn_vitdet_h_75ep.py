"""Detectron2's Cascade Mask R-CNN with ViT-H (ViTDet, arXiv 2203.16527), 75 epochs.

    mrcnn-jax train --config=detectron2/cascade_mask_rcnn_vitdet_h_75ep --workdir=runs/vitdet \
        --config.model.backbone_weights=detectron2/MAE/vit_h --config.model.dtype=bfloat16 \
        --config.data.root=COCO
    mrcnn-jax convert --source=detectron2 --config=detectron2/cascade_mask_rcnn_vitdet_h_75ep \
        --input=model_final.pkl --workdir=runs/converted

model_final.pkl is cascade_mask_rcnn_vitdet_h_75ep of Detectron2's project ViTDet, which
reports box AP 58.7 and mask AP 51.0. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.vitdet("h")
    presets.as_cascade(config)
    config.train.rpn_post_nms = 1000
    return config
