"""Section 4.2, one mask for all categories: R50-C4.

In the paper: mask AP 29.7.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/agnostic --workdir=runs/agnostic \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.mask_agnostic = True
    return config
