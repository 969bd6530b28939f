"""MMDetection's Mask R-CNN R50-FPN with group norm, 2x schedule (arXiv 1803.08494).

    mrcnn-jax convert --source=mmdetection --config=mmdetection/mask_rcnn_r50_fpn_gn-all_2x \
        --input=FILE.pth --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

FILE.pth is MMDetection's
mask_rcnn_r50_fpn_gn-all_2x_coco_20200206-8eee02a6.pth;
its model zoo reports box AP 40.2 and mask AP 36.4. How training differs is said in docs/fidelity.md.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.mmdetection()
    model, train, caffe = config.model, config.train, presets.mmdetection("caffe").model
    model.pixel_order, model.pixel_mean, model.pixel_std = (
        caffe.pixel_order,
        caffe.pixel_mean,
        caffe.pixel_std,
    )
    model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "group"
    model.box_convs, model.box_fcs = 4, 1
    train.steps, train.decay_steps = 175_920, (117_280, 161_260)
    return config
