"""Detectron2's RPN R50-C4, 1x schedule: a region proposal network on the map of stage 4, without heads.

    mrcnn-jax convert --source=detectron2 --config=detectron2/rpn_r50_c4_1x \
        --input=model_final.pkl --workdir=runs/rpn
    mrcnn-jax evaluate --workdir=runs/rpn --config.data.root=COCO

model_final.pkl is Detectron2's COCO-Detection/rpn_R_50_C4_1x; its model zoo reports a box AR of 51.6 (of 1000
proposals). Names and shapes are those of Detectron2's source; nobody has run the published file here.
This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    presets.as_c4(config)
    config.model.box = False
    config.model.mask = False
    # PRE_NMS_TOPK_TEST and POST_NMS_TOPK_TEST of Detectron2's rpn_R_50_C4_1x.yaml
    config.test.rpn_pre_nms = 12_000
    config.test.rpn_post_nms = 2000
    return config
