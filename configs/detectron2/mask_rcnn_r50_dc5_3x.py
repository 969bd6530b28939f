"""Detectron2's Mask R-CNN R50-DC5, 3x schedule: one map, of stage 5 dilated to stride 16.

    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_r50_dc5_3x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x;
its model zoo reports box AP 40.0 and mask AP 35.9. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2_3x()
    model = config.model
    model.features = "dc5"
    model.padding_multiple = 1
    presets.as_one_map(config)
    return config
