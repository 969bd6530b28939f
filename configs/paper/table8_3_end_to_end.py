"""Table 8, and RPN trained with the heads: X101-FPN.

In the paper: mask AP 37.6, AP50 60.4, AP75 39.9; box AP 41.7, AP50 64.1, AP75 45.2.
Not trained at full size here (docs/paper.md).

The settings are those of table8_2_updated. There the RPN is trained by itself, here with the heads, as the
command below does.

    mrcnn-jax train --config=paper/table8_3_end_to_end --workdir=runs/table8_3_end_to_end \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    paper.update(config)
    return config
