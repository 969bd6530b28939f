"""Detectron2's Mask R-CNN R50-FPN, 1x schedule.

    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_r50_fpn_1x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x;
its model zoo reports box AP 38.6 and mask AP 35.2. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    return config
