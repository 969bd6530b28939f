"""Table 8, and augmentation in testing: X152-FPN.

In the paper: mask AP 41.8, AP50 66.0, AP75 44.8; box AP 47.3, AP50 69.3, AP75 51.5.
Not trained at full size here (docs/paper.md).

The weights are from ImageNet-5k, as in the paper. They have 32 groups of 8 channels; the paper does not state
its own.

    mrcnn-jax train --config=paper/table8_8_test_augmentation --workdir=runs/table8_8_test_augmentation \
        --config.model.backbone_weights=detectron2/FAIR/X-152-32x8d-IN5k
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x152(config)
    paper.update(config)
    paper.augment_training(config)
    config.model.non_local = "subsampled"
    paper.augment_testing(config)
    return config
