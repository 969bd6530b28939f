"""Names of other projects, as their models have them, and architectures told from arrays."""

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.regnet import SIZES
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights import detectron2, mmdetection, torchvision
from mrcnn_jax.weights.mismatches import (
    architecture,
    check_fit,
    differing_fields,
    examples,
    other_project,
)
from mrcnn_jax.weights.zoo_models import MODELS, config_of

LAYOUTS = {
    "torchvision": torchvision.layouts,
    "detectron2": detectron2.layouts,
    "mmdetection": mmdetection.layouts,
}


def test_mismatches_by_hand():
    wanted = {"a": (2,), "b": (2, 3), "c": (1,), "d": (1,), "e": (1,)}
    found = {"a": np.zeros(2), "b": np.zeros((3, 2)), "f\x1b": np.zeros(1)}
    with pytest.raises(ValueError) as error:
        check_fit(wanted, found, source="w.pth")
    assert str(error.value).splitlines() == [
        "w.pth: the arrays do not fit the model: 1 of its 5 do",
        "  3 missing: c",
        "             d",
        "             and 1 more",
        r"  1 unexpected: 'f\x1b'",
        "  1 of another shape: b is (3, 2), must be (2, 3)",
    ]
    check_fit({"a": (2,)}, {"a": np.zeros(2)}, source="w.pth")


def test_examples():
    assert examples(["a"]) == "a"
    assert examples(["a", "b\n", "c"]) == r"a, 'b\n' and 1 more"


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("bbox_head.cls_convs.0.conv.weight", "MMDetection's other detectors"),
        ("roi_head.shared_head.layer4.0.conv1.weight", "MMDetection's other heads"),
        ("backbone.layers.0.1.0.norm1.weight", "MMDetection's other backbones"),
        ("roi_heads.box.feature_extractor.fc6.weight", "maskrcnn-benchmark"),
        ("conv_rpn_fpn2_w", "Detectron"),
        ("roi_heads.mask_head.point_head.fc1.weight", "Detectron2's PointRend"),
        ("proposal_generator.centernet_head.agn_hm.weight", "Detectron2's CenterNet2 or Detic"),
        ("roi_heads.densepose_head.body_conv_fcn1.weight", "Detectron2's DensePose"),
        ("sem_seg_head.p2.0.weight", "Detectron2's segmentation models, such as Panoptic FPN or Mask2Former"),
        ("backbone.bottom_up.blocks.0.attn.qkv.weight", "Detectron2's MViT or Swin"),
        ("head.cls_subnet.0.weight", "Detectron2's RetinaNet"),
        ("head.classification_head.conv.0.0.weight", "torchvision's RetinaNet, FCOS or SSD"),
        ("backbone.body.0.0.weight", "torchvision's detectors with MobileNet"),
        ("features.0.0.weight", "torchvision's other classifiers"),
        ("transformer.encoder.layers.0.self_attn.in_proj_weight", "DETR"),
        ("model.0.conv.weight", "a YOLO model"),
        ("resnet.encoder.stages.0.layers.0.layer.0.convolution.weight", "Hugging Face's models"),
        ("vit.encoder.layer.0.attention.attention.query.weight", "Hugging Face's models"),
        ("blocks.0.attn.qkv.weight", "timm's models other than plain ResNets"),
        ("stages.0.blocks.0.conv_dw.weight", "timm's models other than plain ResNets"),
    ],
)
def test_names_of_other_projects(name: str, project: str):
    assert other_project(["conv1.weight", name]) == f"{project} ({name})"


# One of each architecture; making a model's structure takes a second.
NAMES = (
    *(
        "torchvision/mask_rcnn_r50_fpn_v2",
        "torchvision/keypoint_rcnn_r50_fpn",
        "detectron2/faster_rcnn_r50_c4_1x",
    ),
    *("detectron2/mask_rcnn_r101_dc5_3x", "detectron2/mask_rcnn_x101_32x8d_fpn_3x"),
    *("detectron2/mask_rcnn_r50_fpn_lsj_100ep", "detectron2/fast_rcnn_r50_fpn_1x"),
    *("detectron2/rpn_r50_fpn_1x", "detectron2/rpn_r50_c4_1x", "detectron2/cascade_mask_rcnn_r50_fpn_3x"),
    "detectron2/mask_rcnn_r50_fpn_3x_dconv_c3-c5",
    *("mmdetection/cascade_mask_rcnn_r50_fpn_1x", "mmdetection/mask_rcnn_r50_fpn_mdconv_c3-c5_1x"),
    "mmdetection/mask_rcnn_r50_fpn_syncbn-all_rpn-2conv_ssj_32x2_270k",
)


@pytest.mark.parametrize(
    "name", [*NAMES[:6], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[6:])]
)
def test_architectures(name: str):
    model = MODELS[name]
    config = config_of(model).model
    blueprint = make_blueprint(config, num_classes=2, num_keypoints=3)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS[model.system](blueprint).values()}
    assert other_project(arrays) is None
    fields = architecture(arrays)
    agnostic = set()
    # Two categories: whether heads are class-agnostic shows in their shapes.
    if config.box:
        agnostic = {
            "box_agnostic",
            *(
                ["mask_agnostic"]
                if model.system != "torchvision" and config.mask and not config.box_cascade
                else []
            ),
            *(["mask_cascade"] if config.mask_cascade else []),
        }
    assert len(fields) == 12 + len(agnostic) and agnostic <= fields.keys()
    assert fields == {field: getattr(config, field) for field in fields}


def test_the_arrays_of_c5_are_those_of_dc5():
    """A file cannot tell how stage 5 is dilated, so no other features are advised."""
    config = ModelConfig(features="c5", backbone_depth=101)
    arrays = {
        layout.name: np.empty(layout.shape, np.float32)
        for layout in LAYOUTS["detectron2"](make_blueprint(config, num_classes=2)).values()
    }
    assert "backbone.res5.2.conv3.weight" in arrays
    differing, _ = differing_fields(architecture(arrays), config)
    assert differing == {}
    config.features = "fpn"
    assert differing_fields(architecture(arrays), config)[0] == {"features": "dc5"}


@pytest.mark.parametrize("classes", [1, 2])
def test_class_agnostic_heads(classes: int):
    config = config_of(MODELS["detectron2/mask_rcnn_r50_fpn_1x"]).model
    config.box_agnostic = config.mask_agnostic = True
    blueprint = make_blueprint(config, num_classes=classes)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS["detectron2"](blueprint).values()}
    fields = architecture(arrays)
    found = {name: fields[name] for name in fields if name.endswith("_agnostic")}
    # The heads of one category have the same shapes either way.
    assert found == ({} if classes == 1 else {"box_agnostic": True, "mask_agnostic": True})


def test_a_cascade_of_another_length_has_no_counterpart():
    names = [f"roi_heads.box_predictor.{number}.cls_score.bias" for number in range(2)]
    config = config_of(MODELS["detectron2/cascade_mask_rcnn_r50_fpn_3x"]).model
    blueprint = make_blueprint(config, num_classes=2)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS["detectron2"](blueprint).values()}
    assert names[1] in arrays
    two = {name: array for name, array in arrays.items() if "box_predictor.2." not in name}
    assert "box_cascade" in architecture(arrays) and "box_cascade" not in architecture(two)


def test_offsets_of_no_known_shape_tell_nothing():
    config = config_of(MODELS["detectron2/mask_rcnn_r50_fpn_1x_dconv_c3-c5"]).model
    blueprint = make_blueprint(config, num_classes=2)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS["detectron2"](blueprint).values()}
    assert architecture(arrays)["backbone_deformable"] == "plain"
    arrays["backbone.bottom_up.res3.0.conv2_offset.bias"] = np.float32(0)
    assert "backbone_deformable" not in architecture(arrays)


@pytest.mark.parametrize(
    "backbone",
    ["regnety_4gf", *(pytest.param(name, marks=pytest.mark.slow) for name in ("regnetx_4gf", "regnetx_8gf"))],
)
def test_regnets(backbone: str):
    blueprint = make_blueprint(ModelConfig(backbone=backbone, backbone_width=8), num_classes=2)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS["detectron2"](blueprint).values()}
    assert other_project(arrays) is None
    assert architecture(arrays) == {"backbone": backbone}


def test_regnets_differ_in_their_blocks():
    assert len({(size.blocks, size.squeezed) for size in SIZES.values()}) == len(SIZES)


@pytest.mark.parametrize("kind", ["mask_rcnn_vitdet_l_100ep", "cascade_mask_rcnn_vitdet_h_75ep"])
def test_vision_transformers(kind: str):
    config = config_of(MODELS[f"detectron2/{kind}"]).model
    blueprint = make_blueprint(config, num_classes=2)
    arrays = {x.name: np.empty(x.shape, np.float32) for x in LAYOUTS["detectron2"](blueprint).values()}
    assert other_project(arrays) is None
    found = architecture(arrays)
    assert found == {name: getattr(config, name) for name in found}
    assert {"backbone", "box_cascade"} <= set(found)


def test_no_architecture():
    assert architecture({"conv1.weight": np.zeros((64, 3, 7, 7))}) == {}
