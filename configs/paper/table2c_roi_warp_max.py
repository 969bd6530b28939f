"""Table 2c, RoIWarp, maximum: R50-C4.

In the paper: mask AP 27.2, AP50 49.2, AP75 27.1.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2c_roi_warp_max --workdir=runs/table2c_roi_warp_max \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.roi_pooling = "warp_max"
    return config
