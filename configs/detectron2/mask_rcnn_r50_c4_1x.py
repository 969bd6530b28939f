"""Detectron2's Mask R-CNN R50-C4, 1x schedule: one map of stride 16, stage 5 in the heads (paper figure 4).

    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_r50_c4_1x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x;
its model zoo reports box AP 36.8 and mask AP 32.2. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    presets.as_c4(config)
    return config
