"""Table 5, masks of persons: R50-FPN.

In the paper: box AP 53.6, mask AP 45.8.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table5_masks --workdir=runs/table5_masks \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    return paper.r50_fpn_persons(mask=True, keypoint=False)
