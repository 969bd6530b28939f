"""Table 9, and ResNeXt: X101-FPN.

In the paper: keypoint AP 67.3, AP50 88.0, AP75 73.3.
Not trained at full size here (docs/paper.md).

    mrcnn-jax train --config=paper/table9_4_resnext --workdir=runs/table9_4_resnext \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    paper.update_persons(config)
    paper.as_x101(config)
    return config
