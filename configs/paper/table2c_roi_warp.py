"""Table 2c, RoIWarp, mean: R50-C4.

In the paper: mask AP 27.1, AP50 48.9, AP75 27.1.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2c_roi_warp --workdir=runs/table2c_roi_warp \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.roi_pooling = "warp"
    return config
