"""Table 2a, R50-FPN.

In the paper: mask AP 33.6, AP50 55.2, AP75 35.3.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2a_r50_fpn --workdir=runs/table2a_r50_fpn \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn()
