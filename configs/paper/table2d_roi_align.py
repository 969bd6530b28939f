"""Table 2d, RoIAlign at a stride of 32: R50-C5.

In the paper: mask AP 30.9, AP50 51.8, AP75 32.1; box AP 34.0, AP50 55.3, AP75 36.4.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2d_roi_align --workdir=runs/table2d_roi_align \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_c5()
