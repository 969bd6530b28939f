"""Table 5, keypoints and masks of persons: R50-FPN.

In the paper: box AP 52.0, mask AP 45.1, keypoint AP 64.7.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table5_keypoints_masks --workdir=runs/table5_keypoints_masks \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=True, keypoint=True)
