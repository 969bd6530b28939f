"""Table 4, keypoints and masks: R50-FPN.

In the paper: keypoint AP 63.1, AP50 87.3, AP75 68.7 on test-dev.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table4_keypoints_masks --workdir=runs/table4_keypoints_masks \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=True, keypoint=True)
