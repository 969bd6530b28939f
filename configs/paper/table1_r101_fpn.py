"""Table 1, Mask R-CNN R101-FPN.

In the paper: mask AP 35.7, AP50 58.0, AP75 37.8 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table1_r101_fpn --workdir=runs/table1_r101_fpn \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_r101(config)
    return config
