"""Detectron2's Keypoint R-CNN R50-FPN, 3x schedule: persons and 17 keypoints.

    mrcnn-jax convert --source=detectron2 --config=detectron2/keypoint_rcnn_r50_fpn_3x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x;
its model zoo reports box AP 55.4 and keypoint AP 65.5. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2_3x()
    config.model.mask = False
    config.model.keypoint = True
    config.data.min_keypoints = 1
    config.data.train_annotations = "annotations/person_keypoints_train2017.json"
    config.data.val_annotations = "annotations/person_keypoints_val2017.json"
    config.train.rpn_post_nms = 1500
    config.train.box_beta = 0.5
    return config
