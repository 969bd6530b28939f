"""Detectron2's Mask R-CNN R50-FPN from scratch: batch norm everywhere, large-scale jitter, 100 epochs.

    scripts/train.py --config=configs/detectron2/mask_rcnn_r50_fpn_lsj_100ep.py --workdir=runs/lsj \
        --config.data.root=COCO
    scripts/convert_weights.py --source=detectron2 \
        --config=configs/detectron2/mask_rcnn_r50_fpn_lsj_100ep.py \
        --input=model_final.pkl --workdir=runs/converted

model_final.pkl is that of new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ in Detectron2's model zoo, which reports
box AP 44.6 and mask AP 40.3. Nobody has trained this here at full size.

What Detectron2 does otherwise: it computes in float16 (here ``--config.model.dtype=bfloat16`` comes nearest);
it fills images up to 1024 x 1024 pixels with gray, as part of the image; a large image is cut along its
diagonal only, and boxes are drawn anew around what that leaves of a mask, where here boxes are cut.
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
