"""Table 9, and 101 layers: R101-FPN.

In the paper: keypoint AP 66.1, AP50 87.7, AP75 71.7.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table9_3_deeper --workdir=runs/table9_3_deeper \
        --config.model.backbone_weights=detectron2/MSRA/R-101
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    paper.update_persons(config)
    paper.as_r101(config)
    return config
