"""Table 8, and a non-local block: X152-FPN.

In the paper: mask AP 40.3, AP50 64.4, AP75 42.8; box AP 45.0, AP50 67.8, AP75 48.9.
Not trained at full size here (docs/paper.md).

The weights are from ImageNet-5k, as in the paper. They have 32 groups of 8 channels; the paper does not state
its own.

    mrcnn-jax train --config=paper/table8_7_non_local --workdir=runs/table8_7_non_local \
        --config.model.backbone_weights=detectron2/FAIR/X-152-32x8d-IN5k
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x152(config)
    paper.update(config)
    paper.augment_training(config)
    config.model.non_local = "subsampled"
    return config
