"""The paper's Mask R-CNN R50-FPN on Cityscapes (appendix A), from an ImageNet backbone or a COCO model.

    mrcnn-jax to_coco CITYSCAPES --split=train --output=CITYSCAPES/train.json
    mrcnn-jax to_coco CITYSCAPES --split=val --output=CITYSCAPES/val.json
    mrcnn-jax train --config=cityscapes --workdir=runs/fine --data=CITYSCAPES \
        --config.model.backbone_weights=detectron2/MSRA/R-50
    mrcnn-jax train --config=cityscapes:coco --workdir=runs/coco --data=CITYSCAPES \
        --init=detectron2/mask_rcnn_r50_fpn_3x

CITYSCAPES holds what the archives gtFine_trainvaltest and leftImg8bit_trainvaltest unpack to. Images are
trained on with a short side of 800 to 1024 pixels, one on each of 8 GPUs, and tested at 1024. From ImageNet
there are 24,000 steps at a rate of 0.01, which becomes 0.001 at 18,000. From COCO there are 4000, the rate
becomes 0.001 at 3000, and the outputs for all categories but "rider" are kept (docs/data.md). The paper does
not state the first rate from COCO, taken to be the same, nor a warm-up, which is Detectron2's.

The paper reports mask AP 31.5 on the validation set from ImageNet and 36.4 from COCO, by Cityscapes' own
metric, after 4 hours and 1 hour on 8 GPUs. This config has not been trained at full size.
``mrcnn-jax evaluate`` computes COCO's metric, with groups as crowds.
"""

from mrcnn_jax.config import Config, presets


def get_config(start: str = "imagenet") -> Config:
    if start not in ("imagenet", "coco"):
        raise ValueError(f"configs/cityscapes.py:{start}: the start must be 'imagenet' or 'coco'")
    config = presets.detectron2()
    data, train = config.data, config.train
    data.root = "data/cityscapes"
    data.train_images, data.train_annotations = "leftImg8bit/train", "train.json"
    data.val_images, data.val_annotations = "leftImg8bit/val", "val.json"
    data.train_short_sides = tuple(range(800, 1025))
    data.test_short_side = 1024
    data.long_side = 2048
    data.canvases = ((1024, 2048), (2048, 1024))  # the second one is for upright images: there are none
    data.max_objects = 200  # some streets are crowded
    train.batch_size = 8
    train.learning_rate = 0.01
    train.steps, train.decay_steps = (24_000, (18_000,)) if start == "imagenet" else (4000, (3000,))
    train.checkpoint_every = train.eval_every = 1000
    return config
