"""torchvision's keypointrcnn_resnet50_fpn, for its COCO weights (COCO_V1): persons and 17 keypoints.

    mrcnn-jax convert --source=torchvision --config=torchvision/keypoint_rcnn_r50_fpn \
        --input=keypointrcnn_resnet50_fpn_coco.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

torchvision reports box AP 54.6 and keypoint AP 65.0 for these weights. They need a batch norm epsilon of 0;
for your own weights, trained from an ImageNet backbone, add --config.model.backbone_norm_epsilon=1e-5.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.torchvision()
    config.model.backbone_norm_epsilon = 0.0
    config.model.mask = False
    config.model.keypoint = True
    config.data.min_keypoints = 10
    data = config.data
    data.train_annotations = "annotations/person_keypoints_train2017.json"
    data.val_annotations = "annotations/person_keypoints_val2017.json"
    data.train_short_sides = presets.SMALL_TO_LARGE
    config.train.steps = 184_000  # 46 epochs of the 64,115 images with persons
    config.train.decay_steps = (144_000, 172_000)
    return config
