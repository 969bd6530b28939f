"""Mask R-CNN R50-FPN on Cityscapes (paper, appendix A), from an ImageNet backbone or Detectron2's COCO model.

    mrcnn-jax to_coco CITYSCAPES --split=train --output=CITYSCAPES/train.json
    mrcnn-jax to_coco CITYSCAPES --split=val --output=CITYSCAPES/val.json
    mrcnn-jax train --config=cityscapes --workdir=runs/fine --data=CITYSCAPES \
        --config.model.backbone_weights=detectron2/MSRA/R-50
    mrcnn-jax train --config=cityscapes:coco --workdir=runs/coco --data=CITYSCAPES \
        --init=detectron2/mask_rcnn_r50_fpn_3x

CITYSCAPES holds what the archives gtFine_trainvaltest and leftImg8bit_trainvaltest unpack to. Images and
schedules are the paper's (``on_cityscapes`` in mrcnn_jax/config/paper.py); the model is Detectron2's, so that
its weights fit. configs/paper/table7_fine.py and table7_coco.py have the paper's model. Of a COCO model the
outputs for all categories but "rider" are kept (docs/data.md).

The paper reports mask AP 31.5 on the validation set from ImageNet and 36.4 from COCO, by Cityscapes' own
metric, after 4 hours and 1 hour on 8 GPUs. This config has not been trained at full size.
``mrcnn-jax evaluate`` computes COCO's metric, with groups as crowds.
"""

from mrcnn_jax.config import Config, paper, presets


def get_config(start: str = "imagenet") -> Config:
    if start not in ("imagenet", "coco"):
        raise ValueError(f"configs/cityscapes.py:{start}: the start must be 'imagenet' or 'coco'")
    config = presets.detectron2()
    paper.on_cityscapes(config, coco=start == "coco")
    return config
