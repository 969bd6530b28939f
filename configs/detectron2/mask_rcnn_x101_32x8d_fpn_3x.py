"""Detectron2's Mask R-CNN with ResNeXt-101 32x8d and FPN, 3x schedule.

    mrcnn-jax convert --source=detectron2 \
        --config=detectron2/mask_rcnn_x101_32x8d_fpn_3x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x;
its model zoo reports box AP 44.3 and mask AP 39.5. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2_3x()
    model = config.model
    model.backbone_depth = 101
    model.backbone_groups = 32
    model.backbone_group_width = 8
    model.backbone_stride_in_1x1 = False
    model.pixel_std = (57.375, 57.12, 58.395)
    return config
