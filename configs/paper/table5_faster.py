"""Table 5, Faster R-CNN for persons: R50-FPN.

In the paper: box AP 52.5.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table5_faster --workdir=runs/table5_faster \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=False, keypoint=False)
