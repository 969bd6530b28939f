"""Table 2a, R101-C4.

In the paper: mask AP 32.7, AP50 54.2, AP75 34.3.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2a_r101_c4 --workdir=runs/table2a_r101_c4 \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    paper.as_r101(config)
    return config
