"""MMDetection's Cascade Mask R-CNN R50-FPN, 1x schedule: three box and three mask heads.

    mrcnn-jax convert --source=mmdetection --config=mmdetection/cascade_mask_rcnn_r50_fpn_1x \
        --input=FILE.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

FILE.pth is MMDetection's
cascade_mask_rcnn_r50_fpn_1x_coco_20200203-9d4dcb24.pth;
its model zoo reports box AP 41.2 and mask AP 35.9. How training differs is said in docs/fidelity.md.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.mmdetection()
    presets.as_mmdetection_cascade(config)
    return config
