"""Detectron2's Mask R-CNN with ViT-B (ViTDet, arXiv 2203.16527) for LVIS v1, 100 epochs.

    mrcnn-jax train --config=detectron2/mask_rcnn_vitdet_b_lvis_100ep --workdir=runs/lvis \
        --config.model.backbone_weights=detectron2/MAE/vit_b --config.model.dtype=bfloat16 \
        --config.data.root=COCO
    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_vitdet_b_lvis_100ep \
        --input=model_final.pkl --workdir=runs/converted

COCO has the images and, in annotations/, LVIS's files: docs/lvis.md. model_final.pkl is
LVIS/mask_rcnn_vitdet_b_100ep of Detectron2's project ViTDet, which reports box AP 40.2 and mask AP
38.2. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    return presets.vitdet_lvis("b")
