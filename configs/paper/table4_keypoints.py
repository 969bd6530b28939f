"""Table 4, keypoints only: R50-FPN.

In the paper: keypoint AP 62.7, AP50 87.0, AP75 68.4 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table4_keypoints --workdir=runs/table4_keypoints \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=False, keypoint=True)
