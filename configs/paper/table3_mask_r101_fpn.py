"""Table 3, Mask R-CNN R101-FPN.

In the paper: box AP 38.2, AP50 60.3, AP75 41.7 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table3_mask_r101_fpn --workdir=runs/table3_mask_r101_fpn \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_r101(config)
    return config
