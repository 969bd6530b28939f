"""Table 8, and a backbone trained on ImageNet-5k: X101-FPN.

In the paper: mask AP 38.6, AP50 61.7, AP75 40.9; box AP 42.7, AP50 65.1, AP75 46.6.
Not trained at full size here (docs/paper.md).

The settings are those of table8_3_end_to_end, from other weights: a ResNeXt-101 trained on 5000 classes of
ImageNet, which its authors did not publish. WEIGHTS stands for such a file.

    mrcnn-jax train --config=paper/table8_4_imagenet_5k --workdir=runs/table8_4_imagenet_5k \
        --config.model.backbone_weights=WEIGHTS
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    paper.update(config)
    return config
