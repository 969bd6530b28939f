"""Detectron2's Mask R-CNN R101-FPN, 3x schedule.

    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_r101_fpn_3x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x;
its model zoo reports box AP 42.9 and mask AP 38.6. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2_3x()
    config.model.backbone_depth = 101
    return config
