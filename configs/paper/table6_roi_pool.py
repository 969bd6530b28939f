"""Table 6, keypoints with RoIPool: R50-FPN.

In the paper: keypoint AP 59.8, AP50 86.2, AP75 66.7.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table6_roi_pool --workdir=runs/table6_roi_pool \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    config.model.roi_pooling = "pool"
    return config
