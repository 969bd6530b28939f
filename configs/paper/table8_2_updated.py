"""Table 8, updated baseline: X101-FPN.

In the paper: mask AP 37.0, AP50 59.7, AP75 39.0; box AP 40.5, AP50 63.0, AP75 43.7.
Not trained at full size here (docs/paper.md).

The paper still trains the RPN by itself here: ``mrcnn-jax reproduce --table=8 --scale=full`` prints the
commands for that. The one below trains it with the heads, which is the next row.

    mrcnn-jax train --config=paper/table8_2_updated --workdir=runs/table8_2_updated \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    paper.update(config)
    return config
