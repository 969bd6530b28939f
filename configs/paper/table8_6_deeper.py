"""Table 8, and 152 layers: X152-FPN.

In the paper: mask AP 39.7, AP50 63.2, AP75 42.2; box AP 44.1, AP50 66.4, AP75 48.4.
Not trained at full size here (docs/paper.md).

The weights are from ImageNet-5k, as in the paper. They have 32 groups of 8 channels; the paper does not state
its own.

    mrcnn-jax train --config=paper/table8_6_deeper --workdir=runs/table8_6_deeper \
        --config.model.backbone_weights=detectron2/FAIR/X-152-32x8d-IN5k
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x152(config)
    paper.update(config)
    paper.augment_training(config)
    return config
