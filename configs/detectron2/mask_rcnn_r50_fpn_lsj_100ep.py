"""Detectron2's Mask R-CNN R50-FPN from scratch: batch norm everywhere, large-scale jitter, 100 epochs.

    mrcnn-jax train --config=detectron2/mask_rcnn_r50_fpn_lsj_100ep --workdir=runs/lsj \
        --config.data.root=COCO
    mrcnn-jax convert --source=detectron2 \
        --config=detectron2/mask_rcnn_r50_fpn_lsj_100ep \
        --input=model_final.pkl --workdir=runs/converted

model_final.pkl is Detectron2's new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ;
its model zoo reports box AP 44.6 and mask AP 40.3. This config has not been trained at full size.

Detectron2's training differs: it computes in float16 (``--config.model.dtype=bfloat16`` comes closest here);
it pads images to 1024 x 1024 pixels with gray that counts as part of the image; and it crops large images
along the diagonal only and recomputes boxes from the cropped masks, whereas here boxes are clipped.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    model, train = config.model, config.train
    model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "batch"
    model.backbone_frozen_stages = 0
    model.rpn_convs = 2
    model.box_convs = 4
    model.box_fcs = 1
    presets.jitter_scale(config.data)
    train.steps = 184_375
    train.batch_size = 64
    train.learning_rate = 0.1
    train.decay_steps = (163_889, 177_546)
    train.warmup_steps = 500
    train.warmup_factor = 0.067
    train.weight_decay = 4e-5
    return config
