"""Table 2c, RoIPool: R50-C4.

In the paper: mask AP 26.9, AP50 48.8, AP75 26.4.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2c_roi_pool --workdir=runs/table2c_roi_pool \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.roi_pooling = "pool"
    return config
