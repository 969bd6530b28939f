"""Table 2a, X101-FPN.

In the paper: mask AP 36.7, AP50 59.5, AP75 38.9.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2a_x101_fpn --workdir=runs/table2a_x101_fpn \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    return config
