"""Table 8, and augmentation in training: X101-FPN.

In the paper: mask AP 39.2, AP50 62.5, AP75 41.6; box AP 43.5, AP50 65.9, AP75 47.2.
Not trained at full size here (docs/paper.md).

The paper begins with the weights of table8_4_imagenet_5k, which were not published; the command below with
those of the rows before.

    mrcnn-jax train --config=paper/table8_5_train_augmentation --workdir=runs/table8_5_train_augmentation \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.as_x101(config)
    paper.update(config)
    paper.augment_training(config)
    return config
