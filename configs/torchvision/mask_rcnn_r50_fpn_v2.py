"""torchvision's maskrcnn_resnet50_fpn_v2: batch norm everywhere, deeper RPN and box heads.

    mrcnn-jax convert --source=torchvision --config=torchvision/mask_rcnn_r50_fpn_v2 \
        --input=maskrcnn_resnet50_fpn_v2_coco.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

torchvision reports box AP 47.4 and mask AP 41.8, after 400 epochs with large-scale jitter; the schedule
below is the first version's. This config has not been trained at full size.

torchvision's other reference augmentations are available as
``--config=torchvision/mask_rcnn_r50_fpn_v2:multiscale`` and ``:lsj`` (large-scale jitter).
"""

from mrcnn_jax.config import Config, presets


def get_config(augmentation: str = "hflip") -> Config:
    config = presets.torchvision(augmentation)
    model = config.model
    model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "batch"
    model.rpn_convs = 2
    model.box_convs = 4
    model.box_fcs = 1
    config.train.weight_decay = 4e-5
    return config
