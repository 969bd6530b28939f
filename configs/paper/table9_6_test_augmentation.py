"""Table 9, and augmentation in testing: X101-FPN.

In the paper: keypoint AP 70.4, AP50 89.3, AP75 76.8.
Not trained at full size here (docs/paper.md).

annotations/person_keypoints_unlabeled2017.json is what ``mrcnn-jax distill`` writes from what the model of
table9_4_resnext finds in COCO's unlabelled images (docs/data.md, "Data distillation").

    mrcnn-jax train --config=paper/table9_6_test_augmentation --workdir=runs/table9_6_test_augmentation \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    paper.update_persons(config)
    paper.as_x101(config)
    paper.distill(config)
    paper.augment_testing(config)
    return config
