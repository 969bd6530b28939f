"""Table 2c, RoIAlign, maximum: R50-C4.

In the paper: mask AP 30.2, AP50 51.0, AP75 31.8.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2c_roi_align_max --workdir=runs/table2c_roi_align_max \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.roi_pooling = "align_max"
    return config
