"""MMDetection's Cascade Mask R-CNN R50-FPN, 1x schedule, from Detectron2's ResNet ("caffe").

    mrcnn-jax convert --source=mmdetection --config=mmdetection/cascade_mask_rcnn_r50_caffe_fpn_1x \
        --input=FILE.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

FILE.pth is MMDetection's
cascade_mask_rcnn_r50_caffe_fpn_1x_coco_bbox_mAP-0.412__segm_mAP-0.36_20200504_174659-5004b251.pth;
its model zoo reports box AP 41.2 and mask AP 36.0. How training differs is said in docs/fidelity.md.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.mmdetection("caffe")
    presets.as_mmdetection_cascade(config)
    return config
