"""Table 3, Faster R-CNN R101-FPN with RoIAlign.

In the paper: box AP 37.3, AP50 59.6, AP75 40.3 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table3_faster_r101_fpn --workdir=runs/table3_faster_r101_fpn \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_r101(config)
    paper.without_masks(config)
    return config
