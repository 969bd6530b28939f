"""The models of Detectron2's YAML files: the arrays read here are those that its models have."""

import hashlib
import json
from pathlib import Path

import pytest

from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.detectron2.files import read_settings
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights.detectron2 import layouts

THEIRS = json.loads((Path(__file__).parents[2] / "fixtures/detectron2_yaml.json").read_text())["arrays"]
# Of different kinds; making a model's structure takes up to a second.
QUICK = (
    *("COCO-Detection/rpn_R_50_C4_1x.yaml", "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml"),
    *("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x.yaml", "Cityscapes/mask_rcnn_R_50_FPN.yaml"),
    *("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic.yaml"),
    *("Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml", "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"),
)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in THEIRS]
)
def test_names_and_shapes(zoo, name):
    settings = read_settings(zoo / name)
    model = read_config(zoo / name, for_inference=True).model
    blueprint = make_blueprint(
        model,
        num_classes=settings["MODEL.ROI_HEADS.NUM_CLASSES"],
        num_keypoints=settings["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"] if model.keypoint else 0,
    )
    lines = sorted(f"{array.name} {array.shape}" for array in layouts(blueprint).values())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == THEIRS[name]
