"""Table 7, Cityscapes from an ImageNet backbone: R50-FPN.

In the paper: mask AP 31.5 on val; mask AP 26.2, AP50 49.9 on test, by Cityscapes' own metric.
Not trained at full size here (docs/paper.md). ``mrcnn-jax evaluate`` computes COCO's metric.

    mrcnn-jax to_coco data/cityscapes --split=train --output=data/cityscapes/train.json
    mrcnn-jax to_coco data/cityscapes --split=val --output=data/cityscapes/val.json
    mrcnn-jax train --config=paper/table7_fine --workdir=runs/table7_fine \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.on_cityscapes(config, coco=False)
    return config
