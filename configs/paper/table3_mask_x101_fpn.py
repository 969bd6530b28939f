"""Table 3, Mask R-CNN X101-FPN.

In the paper: box AP 39.8, AP50 62.3, AP75 43.4 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table3_mask_x101_fpn --workdir=runs/table3_mask_x101_fpn \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    return config
