"""Table 5, keypoints of persons: R50-FPN.

In the paper: box AP 50.7, keypoint AP 64.2.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table5_keypoints --workdir=runs/table5_keypoints \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=False, keypoint=True)
