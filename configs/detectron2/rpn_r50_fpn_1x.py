"""Detectron2's RPN R50-FPN, 1x schedule: a region proposal network without heads.

    mrcnn-jax convert --source=detectron2 --config=detectron2/rpn_r50_fpn_1x \
        --input=model_final.pkl --workdir=runs/rpn
    mrcnn-jax propose --workdir=runs/rpn --config.data.root=COCO --split=val --output=COCO/proposals_val.npz
    mrcnn-jax evaluate --workdir=runs/rpn --config.data.root=COCO

model_final.pkl is Detectron2's COCO-Detection/rpn_R_50_FPN_1x; its model zoo reports a box AR of 58.0 (of
1000 proposals). Names and shapes are those of Detectron2's source; nobody has run the published file here.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    config.model.box = False
    config.model.mask = False
    config.test.rpn_post_nms = 2000  # POST_NMS_TOPK_TEST of Detectron2's rpn_R_50_FPN_1x.yaml
    # Without heads, only mrcnn-jax propose --split=train reads these: Detectron2 makes the proposals that its
    # Fast R-CNN is trained on with the limits for tests, too.
    config.train.rpn_pre_nms = config.test.rpn_pre_nms
    config.train.rpn_post_nms = config.test.rpn_post_nms
    return config
