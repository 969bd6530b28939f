"""Table 2c, RoIAlign, mean: R50-C4.

In the paper: mask AP 30.3, AP50 51.2, AP75 31.5.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2c_roi_align --workdir=runs/table2c_roi_align \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_c4()
