"""Table 2b, a softmax over the categories of every cell: R50-C4.

In the paper: mask AP 24.8, AP50 44.1, AP75 25.1.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table2b_softmax --workdir=runs/table2b_softmax \
        --config.model.backbone_weights=detectron2/MSRA/R-50
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_c4()
    config.model.mask_loss = "softmax"
    return config
