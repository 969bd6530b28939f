"""Which parts of a model go together, and what is refused where a part is missing."""

import dataclasses

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import validate


def check_problems(config: Config, lines: list[str]) -> None:
    """Checks that the config's errors are these lines; without any, that it is valid."""
    if not lines:
        validate(config)
        return
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value).splitlines() == lines


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"backbone_deformable": "plain", "features": "c4"},
            ["model.features is 'c4'; must be another with model.backbone_deformable"],
        ),
        (
            {"backbone_deformable": "plain", "backbone_depth": 34},
            ["model.backbone_deformable is 'plain'; must be '' with a model.backbone_depth under 50"],
        ),
        (
            {"backbone": "regnetx_4gf", "features": "c5", "backbone_width": 12},
            [
                "model.features is 'c5'; must be 'fpn' with model.backbone 'regnetx_4gf'",
                "model.backbone_width is 12; must be a multiple of 8 with model.backbone 'regnetx_4gf'",
            ],
        ),
        (
            {"backbone": "regnetx_4gf", "backbone_drop_path": 0.1},
            ["model.backbone_drop_path is 0.1; must be 0.0 with model.backbone 'regnetx_4gf'"],
        ),
        (
            {
                "backbone": "swin_t",
                "features": "dc5",
                "backbone_deformable": "plain",
                "backbone_norm": "group",
                "backbone_width": 20,
                "backbone_drop_path": 1.0,
            },
            [
                "model.backbone_deformable is 'plain'; must be '' with model.backbone 'swin_t'",
                "model.features is 'dc5'; must be 'fpn' with model.backbone 'swin_t'",
                "model.backbone_norm is 'group'; must be 'frozen_batch' with model.backbone 'swin_t'",
                "model.backbone_width is 20; must be a multiple of 8 with model.backbone 'swin_t'",
                "model.backbone_drop_path is 1.0; must be below 1, or nothing of the last block is trained",
            ],
        ),
        ({"backbone": "convnext_s", "backbone_drop_path": 0.6, "backbone_frozen_stages": 3}, []),
        (
            {"backbone": "vit_b", "features": "c4", "backbone_width": 12, "backbone_drop_path": 1.0},
            [
                "model.features is 'c4'; must be 'fpn' with model.backbone 'vit_b'",
                "model.backbone_frozen_stages is 2; must be 0 with model.backbone 'vit_b'",
                "model.backbone_width is 12; must be a multiple of 8 with model.backbone 'vit_b'",
                "model.backbone_drop_path is 1.0; must be below 1, or nothing of the last block is trained",
                *(
                    f"data.canvases has {canvas}; must be (32, 32), by model.padding_multiple, with "
                    "model.backbone 'vit_b', which sees the whole canvas"
                    for canvas in Config().data.canvases
                ),
            ],
        ),
        (
            {"box_cascade": ((20.0, 20.0, 10.0, 10.0),), "features": "c4"},
            [
                "train.cascade_positive_ious is (); must have one for each of model.box_cascade, which is "
                "((20.0, 20.0, 10.0, 10.0),)",
                "model.box_agnostic is False; must be True with a cascade (model.box_cascade)",
                "model.features is 'c4'; must be 'fpn' with a cascade (model.box_cascade)",
            ],
        ),
        (
            {"mask": False, "mask_loss": "softmax", "mask_agnostic": True},
            [
                "model.mask_loss is 'softmax'; must be 'sigmoid' with model.mask False",
                "model.mask_agnostic is True; must be False with model.mask False",
            ],
        ),
        (
            {"mask": False, "mask_fcs": 2, "mask_convs": 0},
            ["model.mask_fcs is 2; must be 0 with model.mask False"],
        ),
        (
            {"mask_fcs": 3, "mask_norm": "batch"},
            [
                "model.mask_convs is 4; must be 0 with model.mask_fcs 3, fully connected layers in place of "
                "the convolutions",
                "model.mask_norm is 'batch'; must be '' with model.mask_fcs 3, fully connected layers in "
                "place of the convolutions",
            ],
        ),
        ({"mask_fcs": 2, "mask_convs": 0, "mask_loss": "softmax", "mask_agnostic": True}, []),
        (
            {"mask_cascade": True, "mask_loss": "softmax"},
            [
                "model.mask_loss is 'softmax'; must be 'sigmoid' with model.mask_cascade True",
                "model.mask_cascade is True; must be False without a cascade (model.box_cascade is empty)",
            ],
        ),
        ({"mask": False, "box_agnostic": True}, []),
    ],
)
def test_mask_heads_that_make_no_sense(changes, lines):
    config = Config()
    config.model = dataclasses.replace(config.model, **changes)
    check_problems(config, lines)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"box": False, "mask": False}, []),
        ({"rpn": False}, []),
        (
            {"box": False, "keypoint": True},
            [
                "model.mask is True; must be False without the box head (model.box is False)",
                "model.keypoint is True; must be False without the box head (model.box is False)",
            ],
        ),
        (
            {"box": False, "mask": False, "rpn": False},
            ["model.rpn is False; must be True without the box head (model.box is False)"],
        ),
        (
            {"box": False, "mask": False, "box_agnostic": True, "roi_pooling": "warp_max"},
            [
                "model.box_agnostic is True; must be False without the box head (model.box is False)",
                "model.roi_pooling is 'warp_max'; must be 'align' without the box head (model.box is False)",
            ],
        ),
        (
            {"features": "c4", "fpn_fuse": "avg"},
            ["model.fpn_fuse is 'avg'; must be 'sum' without FPN's top-down path"],
        ),
        (
            {"features": "c4", "fpn_frozen": True},
            ["model.fpn_frozen is True; must be False without a pyramid (model.features is 'c4')"],
        ),
    ],
)
def test_parts_of_the_model(changes, lines):
    config = Config(model=dataclasses.replace(Config().model, **changes))
    check_problems(config, lines)


def test_devices_share_images_of_convnext_but_not_of_swin():
    config = Config()
    config.model.backbone = "convnext_t"
    config.train.spatial_devices, config.data.canvases = 2, ((1344, 1344),)
    validate(config)
    config.model.backbone = "swin_t"
    check_problems(config, ["train.spatial_devices is 2; must be 1 with model.backbone 'swin_t'"])


@pytest.mark.parametrize("field", ["train_proposals", "val_proposals"])
def test_a_model_with_an_rpn_takes_no_proposals(field):
    config = Config()
    setattr(config.data, field, "p.npz")
    with pytest.raises(
        ValueError, match=rf"data\.{field} is 'p\.npz'; must be empty .*\(model\.rpn is True\)"
    ):
        validate(config)
    config.model.rpn = False
    validate(config)


@pytest.mark.parametrize("augmentation", [{"scales": (400, 800)}, {"flip": True}])
@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (
            {"rpn": False},
            "test.scales and test.flip must be unset for a model without an RPN (model.rpn is False): "
            "proposals from files have one scale",
        ),
        (
            {"box": False, "mask": False},
            "test.scales and test.flip must be unset without the box head (model.box is False): proposals "
            "are made at one scale",
        ),
    ],
)
def test_only_a_complete_model_has_test_time_augmentation(augmentation, parts, line):
    config = Config()
    config.test = dataclasses.replace(config.test, **augmentation)
    validate(config)
    config.model = dataclasses.replace(config.model, **parts)
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value) == line
