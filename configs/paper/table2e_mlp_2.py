"""Table 2e, masks from two hidden layers that are fully connected: R50-FPN.

In the paper: mask AP 31.5, AP50 53.7, AP75 32.8.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2e_mlp_2 --workdir=runs/table2e_mlp_2 \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    config.model.mask_convs = 0
    config.model.mask_fcs = 2
    return config
