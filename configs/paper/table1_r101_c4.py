"""Table 1, Mask R-CNN R101-C4.

In the paper: mask AP 33.1, AP50 54.9, AP75 34.8 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table1_r101_c4 --workdir=runs/table1_r101_c4 \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    paper.as_r101(config)
    return config
