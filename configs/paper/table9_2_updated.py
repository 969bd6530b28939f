"""Table 9, updated baseline: R50-FPN.

In the paper: keypoint AP 65.1, AP50 86.6, AP75 70.9.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table9_2_updated --workdir=runs/table9_2_updated \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    paper.update_persons(config)
    return config
