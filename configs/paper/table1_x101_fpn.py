"""Table 1, Mask R-CNN X101-FPN.

In the paper: mask AP 37.1, AP50 60.0, AP75 39.4 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table1_x101_fpn --workdir=runs/table1_x101_fpn \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    return config
