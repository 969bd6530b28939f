import dataclasses

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import flatten, from_dict, validate
from mrcnn_jax.config.limits import LIMITS


def test_the_defaults_are_valid():
    validate(Config())


def test_values_at_the_edge_of_their_range_are_valid():
    config = Config()
    config.model.roi_sampling_ratio = 0
    config.test.mask_threshold = 1.0
    config.train.steps = 10**400
    config.data.canvases = ((1344, 1344),)
    validate(config)
    # The long side is the limit of the short one.
    config.data.long_side = 64
    config.data.canvases = ((64, 64),)
    validate(config)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"canvases": ((800, 1344), (1088, 1088))},
            [("images of 1333x800 (height x width)", "make: add (1344, 800)")],
        ),
        (
            {"test_short_side": 900},
            [("images of 900x1333", "add (928, 1344)"), ("images of 1333x900", "add (1344, 928)")],
        ),
        ({"train_short_sides": (640, 2000)}, [("images of 1333x1333", "add (1344, 1344)")]),
        (
            {"long_side": 5000},
            [("images of 800x5000", "add (800, 5024)"), ("images of 5000x800", "add (5024, 800)")],
        ),
        (  # in training alone, and in prediction alone
            {"train_long_side": 1440, "test_short_side": 960},
            [
                (
                    "images of 800x1440",
                    "data.train_short_sides and data.train_long_side make: add (800, 1440)",
                ),
                ("images of 1440x800", "add (1440, 800)"),
                ("images of 960x1333", "data.test_short_side and data.long_side make: add (960, 1344)"),
                ("images of 1333x960", "add (1344, 960)"),
            ],
        ),
    ],
)
def test_canvases_hold_every_size_that_is_asked_for(changes, lines):
    config = Config()
    config.data = dataclasses.replace(config.data, **changes)
    with pytest.raises(ValueError) as error:
        validate(config)
    assert len(str(error.value).splitlines()) == len(lines)
    for line, (size, advice) in zip(str(error.value).splitlines(), lines, strict=True):
        assert line.startswith(f"data.canvases is {config.data.canvases!r}; one must hold {size}")
        assert line.endswith(advice)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("model.pixel_order", "grb", "must be one of 'rgb', 'bgr'"),
        ("model.dtype", "float16", "must be one of 'float32', 'bfloat16'"),
        ("model.backbone_depth", 51, "must be one of 18, 34, 50, 101, 152"),
        ("model.backbone_recomputed_stages", 5, "must be one of -1, 0, 1, 2, 3, 4"),
        ("model.backbone_norm", "layer", "must be one of 'frozen_batch', 'batch', 'group'"),
        ("model.features", "p2", "must be one of 'fpn', 'c4', 'c5', 'dc5'"),
        ("model.res5_stride", 4, "must be one of 1, 2"),
        (
            "model.res5_stride",
            1,
            "must be 2 with model.features 'fpn': only the heads of 'c4' contain stage 5",
        ),
        ("model.non_local", "gaussian", "must be one of '', 'subsampled', 'full'"),
        ("train.optimizer", "adam", "must be one of 'sgd', 'adamw'"),
        ("train.adam_b2", -0.5, "must be between 0 and 1"),
        ("train.schedule", "linear", "must be one of 'step', 'cosine'"),
        ("model.pixel_std", (1.0, 0.0, 1.0), "must be positive"),
        ("train.batch_size", 0, "must be positive"),
        ("train.steps", "many", "must be of type int"),
        ("train.seed", -1, "must not be negative"),
        ("train.learning_rate", float("nan"), "must be finite"),
        ("train.clip_norm", float("inf"), "must be finite"),
        ("test.nms_iou", 1.5, "must be between 0 and 1"),
        ("train.momentum", -0.1, "must be between 0 and 1"),
        ("test.mask_threshold", 0.0, "must be positive"),
        ("test.mask_threshold", 1.1, "must be between 0 and 1"),
        ("model.roi_sampling_ratio", -1, "must not be negative"),
        (
            "model.roi_pooling",
            "roi_align",
            "must be one of 'align', 'align_max', 'pool', 'warp', 'warp_max'",
        ),
        ("train.keypoint_weight", -0.5, "must not be negative"),
        ("model.backbone_frozen_stages", 6, "must be between 0 and 5"),
        ("model.anchor_sizes", (32.0, 64.0), "must have 5, one per level p2 to p6"),
        ("model.anchor_ratios", (), "must not be empty"),
        ("model.mask_loss", "hinge", "must be one of 'sigmoid', 'softmax'"),
        ("model.mask_fcs", -1, "must not be negative"),
        ("data.canvases", (), "must not be empty"),
        ("data.train_annotations", "", "must not be empty"),
        ("data.canvases", ((1344, 1344), (64, 80)), "(64, 80); height and width must be multiples of 32"),
        ("train.rpn_negative_iou", 0.8, "must not exceed train.rpn_positive_iou (0.7)"),
        ("train.decay_steps", (20, 10), "must ascend"),
        ("train.decay_steps", (10, 10), "must ascend"),
        ("train.stop_after", 3, "must be 0 without evaluations (train.eval_every is 0)"),
        ("train.validation_loss", True, "must be False without evaluations (train.eval_every is 0)"),
        ("train.ema_decay", 1.0, "must be below 1"),
        ("train.frozen", ("fpn.*", ""), "must not have an empty item"),
        ("train.rate_factors", (("fpn.*", 0.0),), "must be positive"),
        ("test.scales", (800, 0), "must be positive"),
        ("test.scales", (800, 800), "must not repeat a scale"),
        (
            "test.scales",
            (800, 6000),
            "9997 pixels; must be at most 8192, or limited by test.scales_long_side",
        ),
        ("test.scales_long_side", 4000, "must be 0 without test.scales"),
    ],
)
def test_validate_names_the_field_the_value_and_the_rule(name, value, rule):
    config = Config()
    section, field = name.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(ValueError) as error:
        validate(config)
    (line,) = str(error.value).splitlines()
    assert line.startswith(name)
    assert repr(value) in line or name == "data.canvases"
    assert rule in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.pixel_mean": (1.0, 2.0, 3.0, 4.0)},
            "model.pixel_std is (58.395, 57.12, 57.375); must have one value for each channel, like "
            "model.pixel_mean, which is (1.0, 2.0, 3.0, 4.0)",
        ),
        ({"model.pixel_mean": (), "model.pixel_std": ()}, "model.pixel_mean is (); must not be empty"),
        (
            {"model.pixel_mean": (-1.0, 0.0, 0.0)},
            "model.pixel_mean is (-1.0, 0.0, 0.0); must not be negative with model.pixel_type 'uint8'",
        ),
        (
            {"model.pixel_mean": (1.0,), "model.pixel_std": (1.0,), "model.pixel_order": "bgr"},
            "model.pixel_order is 'bgr'; must be 'rgb' with the channels of model.pixel_mean: 1",
        ),
        (
            {"data.shown_channels": (0, 1, 3)},
            "data.shown_channels is (0, 1, 3); must be one or three of the 3 channels of model.pixel_mean, "
            "from 0 to 2, or empty",
        ),
        ({"data.shown_channels": (0, 1)}, "data.shown_channels is (0, 1); must be one or three"),
        (
            {"model.pixel_type": "float32", "data.colour_jitter": True},
            "data.colour_jitter is True; must be False unless images are RGB of 8 bits (model.pixel_mean has "
            "3 values, model.pixel_type is 'float32'); --augment can change other channels",
        ),
    ],
)
def test_pixels_that_contradict_each_other_are_named(changes, message):
    config = Config()
    for name, value in changes.items():
        section, field = name.split(".")
        setattr(getattr(config, section), field, value)
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"crop": "relative", "crop_size": (0.5, 1.5)},
            "data.crop_size is (0.5, 1.5); must be shares of the height and width, at most 1, with data.crop "
            "'relative'",
        ),
        (
            {"crop": "absolute", "crop_size": (300.0, 400.5)},
            "data.crop_size is (300.0, 400.5); must be whole pixels with data.crop 'absolute'",
        ),
        (
            {"crop": "absolute_range", "crop_size": (600.0, 400.0), "canvases": ((1344, 1344),)},
            "data.crop_size is (600.0, 400.0); must be the fewest and the most pixels of a side with "
            "data.crop 'absolute_range'",
        ),
        (
            {"crop": "relative_range", "canvases": ((800, 1344), (1344, 800))},
            "data.canvases is ((800, 1344), (1344, 800)); one must hold images of 1333x1333 with data.crop "
            "'relative_range', whose crops of an image may be high or wide: add (1344, 1344)",
        ),
        ({"crop_share": 0.5}, "data.crop_share is 0.5; must be 1.0 without a crop (data.crop is '')"),
        (
            {"crop_short_sides": (400,)},
            "data.crop_short_sides is (400,); must be () without a crop (data.crop is '')",
        ),
        ({"crop": "random"}, "data.crop is 'random'; must be one of '', 'relative', 'relative_range', "),
        ({"rotation": 46.0}, "data.rotation is 46.0; must be between 0 and 45"),
        ({"erase": 1.1}, "data.erase is 1.1; must be between 0 and 1"),
        ({"copy_paste": -0.1}, "data.copy_paste is -0.1; must be between 0 and 1"),
    ],
)
def test_augmentations_that_cannot_be_are_named(changes, message):
    config = Config()
    config.data = dataclasses.replace(config.data, **changes)
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value).startswith(message)


def test_augmentations_that_can_be():
    for changes in (
        {"crop": "relative_range", "canvases": (*Config().data.canvases, (1344, 1344))},
        {"crop": "relative_range", "scale_jitter": (0.1, 2.0)},
        {"crop": "relative", "crop_size": (0.5, 1.0)},
        {"crop": "absolute", "crop_size": (384.0, 600.0)},
        {"rotation": 45.0, "quarter_turns": True, "copy_paste": 1.0, "erase": 1.0},
    ):
        config = Config()
        config.data = dataclasses.replace(config.data, **changes)
        validate(config)


def test_nothing_is_pasted_for_a_model_without_an_rpn():
    config = Config()
    config.model.rpn, config.data.copy_paste = False, 0.5
    with pytest.raises(ValueError, match=r"data\.copy_paste is 0\.5; must be 0 for a model without an RPN"):
        validate(config)


@pytest.mark.parametrize("features", ["fpn", "c4", "c5"])
def test_shallow_backbones_have_no_dilation(features):
    config = Config()
    config.model = dataclasses.replace(config.model, backbone_depth=18, features=features)
    validate(config)
    config.model.features = "dc5"
    with pytest.raises(ValueError) as error:
        validate(config)
    rule = "model.features is 'dc5'; must be another with a model.backbone_depth under 50"
    assert str(error.value) == rule


def test_one_map_takes_any_number_of_anchor_sizes_and_any_canvas():
    config = Config()
    config.model = dataclasses.replace(config.model, features="c5", anchor_sizes=(64.0,), padding_multiple=1)
    config.data.canvases = ((800, 1333), (1333, 800))
    validate(config)
    config.model.features, config.model.res5_stride = "c4", 1
    validate(config)


def test_the_long_side_of_scales_is_at_least_their_largest():
    config = Config()
    config.test = dataclasses.replace(config.test, scales=(400, 6000), scales_long_side=5999)
    with pytest.raises(ValueError, match=r"scales_long_side is 5999; must be 0 or at least .* \(6000\)"):
        validate(config)
    config.test.scales_long_side = 6000
    validate(config)


def test_adamw_needs_moments_that_forget():
    config = Config()
    config.train = dataclasses.replace(config.train, momentum=1.0, adam_b2=1.0)
    validate(config)
    config.train.optimizer = "adamw"
    with pytest.raises(ValueError) as error:
        validate(config)
    rule = "is 1.0; must be below 1 with train.optimizer 'adamw'"
    assert str(error.value).splitlines() == [f"train.momentum {rule}", f"train.adam_b2 {rule}"]


@pytest.mark.parametrize("name", ["train.spatial_devices", "test.spatial_devices"])
def test_devices_that_share_an_image_have_equally_many_rows(name):
    config = Config()
    config.data.canvases = ((1344, 1344), (800, 1344), (64, 64))
    section, field = name.split(".")
    setattr(getattr(config, section), field, 2)
    with pytest.raises(ValueError) as error:
        validate(config)
    rule = (
        f"with {name} 2 the height must be a multiple of 64, so that each device has equally many rows of "
        "every map, and at least 128"
    )
    lines = [f"data.canvases has {canvas}; {rule}" for canvas in ("(800, 1344)", "(64, 64)")]
    assert str(error.value).splitlines() == lines
    config.data.canvases = ((1344, 1344), (832, 1344))
    validate(config)


def test_validate_reports_all_problems_at_once():
    config = Config()
    config.train = dataclasses.replace(config.train, steps=0, momentum=2.0, decay_steps=(2, 1))
    with pytest.raises(ValueError) as error:
        validate(config)
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.box_channels", 10**9),
        ("model.mask_fcs", 10**6),
        ("data.long_side", 10**400),
        ("model.backbone_width", 10**9),
        ("data.canvases", ((800, 1344), (10**6, 32))),
        ("data.train_short_sides", (10**9,)),
        ("train.roi_samples", 10**7),
        ("test.candidates", 10**12),
        ("test.detections", 10**12),
    ],
)
def test_what_would_fill_the_memory_is_an_error(name, value):
    section, field = name.split(".")
    config = from_dict({section: {field: value}})
    with pytest.raises(ValueError, match=rf"^{name} is .*; must be at most {LIMITS[name]}"):
        validate(config)
    assert LIMITS.keys() <= flatten(config).keys()


def test_long_values_are_an_error_with_a_short_message():
    config = from_dict({"train": {"decay_steps": list(range(1, 2000))}})
    with pytest.raises(ValueError, match=r"^train\.decay_steps has 1999 values; must have at most 1000$"):
        validate(config)
    config = from_dict({"data": {"canvases": [[33, 33]] * 2000}})  # each of them would be a line
    with pytest.raises(ValueError, match=r"^data\.canvases has 2000 values; must have at most 1000$"):
        validate(config)
    config = from_dict({"data": {"canvases": [[32, 32]] * 1000}})
    with pytest.raises(ValueError, match=r"^data\.canvases is .*; one must hold") as error:
        validate(config)
    assert max(map(len, str(error.value).splitlines())) < 700
    with pytest.raises(ValueError) as error:
        from_dict({"train": {"steps": "x" * 10_000_000}})
    assert len(str(error.value)) < 500
