"""Table 9, original baseline: R50-FPN.

In the paper: keypoint AP 64.2, AP50 86.6, AP75 69.7.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table9_1_original --workdir=runs/table9_1_original \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=False, keypoint=True)
