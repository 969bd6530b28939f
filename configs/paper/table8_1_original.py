"""Table 8, original baseline: X101-FPN.

In the paper: mask AP 36.7, AP50 59.5, AP75 38.9; box AP 39.6, AP50 61.5, AP75 43.2.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table8_1_original --workdir=runs/table8_1_original \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    return config
