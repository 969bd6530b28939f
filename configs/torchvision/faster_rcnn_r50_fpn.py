"""torchvision's fasterrcnn_resnet50_fpn: boxes alone.

    scripts/convert_weights.py --source=torchvision --config=configs/torchvision/faster_rcnn_r50_fpn.py \
        --input=fasterrcnn_resnet50_fpn_coco.pth --workdir=runs/converted
    scripts/predict.py --workdir=runs/converted --output=out photo.jpg

torchvision reports box AP 37.0. Its COCO weights (COCO_V1) are used without an epsilon in batch norm.
Nobody has trained this here at full size.

The other augmentations of torchvision's reference training are
``--config=configs/torchvision/faster_rcnn_r50_fpn.py:multiscale`` and ``:lsj`` (large-scale jitter).
"""

from mrcnn_jax.config import Config, presets


def get_config(augmentation: str = "hflip") -> Config:
    config = presets.torchvision(augmentation)
    config.model.backbone_norm_epsilon = 0.0
    config.model.mask = False
    return config
