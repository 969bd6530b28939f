"""Table 2a, R101-FPN.

In the paper: mask AP 35.4, AP50 57.3, AP75 37.5.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2a_r101_fpn --workdir=runs/table2a_r101_fpn \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_r101(config)
    return config
