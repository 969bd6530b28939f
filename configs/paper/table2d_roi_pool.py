"""Table 2d, RoIPool at a stride of 32: R50-C5.

In the paper: mask AP 23.6, AP50 46.5, AP75 21.6; box AP 28.2, AP50 52.7, AP75 26.9.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2d_roi_pool --workdir=runs/table2d_roi_pool \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c5()
    config.model.roi_pooling = "pool"
    return config
