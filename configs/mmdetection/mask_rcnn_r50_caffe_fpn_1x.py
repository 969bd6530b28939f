"""MMDetection's Mask R-CNN R50-FPN, 1x schedule, from Detectron2's ResNet ("caffe").

    mrcnn-jax convert --source=mmdetection --config=mmdetection/mask_rcnn_r50_caffe_fpn_1x \
        --input=FILE.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

FILE.pth is MMDetection's
mask_rcnn_r50_caffe_fpn_1x_coco_bbox_mAP-0.38__segm_mAP-0.344_20200504_231812-0ebd1859.pth;
its model zoo reports box AP 38.0 and mask AP 34.4. How training differs is said in docs/fidelity.md.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    return presets.mmdetection("caffe")
