"""torchvision's fasterrcnn_resnet50_fpn: boxes only.

    mrcnn-jax convert --source=torchvision --config=torchvision/faster_rcnn_r50_fpn \
        --input=fasterrcnn_resnet50_fpn_coco.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

torchvision reports box AP 37.0. Its COCO weights (COCO_V1) need a batch norm epsilon of 0.
This config has not been trained at full size.

torchvision's other reference augmentations are available as
``--config=torchvision/faster_rcnn_r50_fpn:multiscale`` and ``:lsj`` (large-scale jitter).
"""

from mrcnn_jax.config import Config, presets


def get_config(augmentation: str = "hflip") -> Config:
    config = presets.torchvision(augmentation)
    config.model.backbone_norm_epsilon = 0.0
    config.model.mask = False
    return config
