"""MMDetection's Mask R-CNN R50-FPN, 1x schedule, from torchvision's ResNet.

    mrcnn-jax convert --source=mmdetection --config=mmdetection/mask_rcnn_r50_fpn_1x \
        --input=FILE.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

FILE.pth is MMDetection's
mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth;
its model zoo reports box AP 38.2 and mask AP 34.7. How training differs is said in docs/fidelity.md.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    return presets.mmdetection()
