"""Table 9, and data distillation: X101-FPN.

In the paper: keypoint AP 69.1, AP50 88.9, AP75 75.3.
Not trained at full size here (docs/paper.md).

annotations/person_keypoints_unlabeled2017.json is what ``mrcnn-jax distill`` writes from what the model of
table9_4_resnext finds in COCO's unlabelled images (docs/data.md, "Data distillation").

    mrcnn-jax train --config=paper/table9_5_data_distillation --workdir=runs/table9_5_data_distillation \
        --config.model.backbone_weights=detectron2/FAIR/X-101-64x4d
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn_persons(mask=False, keypoint=True)
    paper.update_persons(config)
    paper.as_x101(config)
    paper.distill(config)
    return config
