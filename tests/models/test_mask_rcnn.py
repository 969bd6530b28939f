import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig, TestConfig
from mrcnn_jax.models.mask_rcnn import MaskRCNN, normalize
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.types import Features


def test_normalize_by_hand():
    config = ModelConfig(pixel_order="bgr", pixel_mean=(1.0, 2.0, 3.0), pixel_std=(2.0, 2.0, 4.0))
    images = jnp.full((1, 2, 2, 3), jnp.array([11, 22, 33]), jnp.uint8)  # red, green, blue
    out = normalize(images, jnp.array([[1, 2]]), config)
    np.testing.assert_allclose(out[0, 0], [[16, 10, 2], [16, 10, 2]])  # (33-1)/2, (22-2)/2, (11-3)/4
    np.testing.assert_array_equal(out[0, 1], 0)


pytestmark = pytest.mark.usefixtures("on_cpu")


@pytest.fixture(scope="module")
def features_of(tiny_blueprint):
    return jax.jit(lambda weights, images, sizes: tiny_blueprint.build(weights).features(images, sizes))


def test_padding_content_has_no_effect(features_of, tiny_weights, tiny_batch):
    sizes = np.full((8, 2), (40, 50), np.int32)
    noisy = tiny_batch.images
    blank = noisy.copy()
    blank[:, 40:] = 0
    blank[:, :, 50:] = 0
    for a, b in zip(
        features_of(tiny_weights, noisy, sizes).maps.values(),
        features_of(tiny_weights, blank, sizes).maps.values(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_levels_anchors_and_rpn_outputs_agree(tiny_blueprint, tiny_weights, tiny_batch):
    @jax.jit
    def outputs(weights, images, sizes):
        model = tiny_blueprint.build(weights)
        features = model.features(images, sizes)
        return features, model.anchors(features, sizes), model.rpn(features)

    features, anchors, rpn = outputs(tiny_weights, tiny_batch.images[:1], tiny_batch.image_sizes[:1])
    assert {name: p.shape for name, p in features.maps.items()} == {
        "p2": (1, 16, 16, 16),
        "p3": (1, 8, 8, 16),
        "p4": (1, 4, 4, 16),
        "p5": (1, 2, 2, 16),
        "p6": (1, 1, 1, 16),
    }
    for level, (objectness, deltas) in rpn.items():
        assert objectness.shape == anchors[level].in_image.shape
        assert deltas.shape == (1, anchors[level].boxes.shape[1] // 3, 3 * 4)
        assert anchors[level].in_image.all()
    # the first cell of p3, aspect ratio 1: a 16-pixel square centred on the cell's corner
    np.testing.assert_allclose(anchors["p3"].boxes[0, 1], [-8, -8, 8, 8], atol=1e-4)


def test_heads_give_a_row_per_region(tiny_blueprint, tiny_weights, tiny_batch):
    @jax.jit
    def outputs(weights, images, sizes, boxes, valid):
        model = tiny_blueprint.build(weights)
        features = model.features(images, sizes)
        labels = jnp.ones((2, 4), int)
        masks = model.mask_logits(features, boxes, labels, valid)
        return model.box_outputs(features, boxes), masks, model.keypoint_logits(features, boxes, valid)

    valid = np.array([[True] * 4, [True, False, False, False]])
    arguments = tiny_batch.images[:2], tiny_batch.image_sizes[:2], tiny_batch.gt.boxes[:2], valid
    (logits, deltas), masks, keypoints = outputs(tiny_weights, *arguments)
    assert (logits.shape, deltas.shape) == ((2, 4, 5), (2, 4, 4, 4))
    assert masks.shape == (2, 4, 28, 28)
    assert keypoints.shape == (2, 4, 56, 56, 9)


def test_a_model_of_sigmoids_has_no_log_probabilities(tiny_blueprint, tiny_weights):
    model = tiny_blueprint.build(tiny_weights)
    boxes, labels, valid = jnp.zeros((1, 2, 4)), jnp.ones((1, 2), int), jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match=r"model\.mask_loss is not 'softmax'"):
        model.mask_log_probabilities(Features(maps={}, sizes={}), boxes, labels, valid)


def test_image_anchor_stride_divides_the_padded_image_by_its_cells():
    """torchvision: an 800 x 1333 image, padded to 800 x 1344, has 13 x 21 cells on p6: 61 pixels a row."""
    config = ModelConfig(anchor_stride="image", anchor_rounded=True)
    model = nnx.eval_shape(lambda: MaskRCNN(config, num_classes=1, rngs=nnx.Rngs(0)))
    sizes = {level: np.array([[-(-800 // s), -(-1344 // s)]]) for level, s in model.strides.items()}
    maps = {level: np.zeros((1, 1344 // s, 1344 // s, 1)) for level, s in model.strides.items()}
    anchors = jax.jit(model.anchors)(Features(maps=maps, sizes=sizes), jnp.array([[800, 1333]]))
    boxes = anchors["p6"].boxes[0].reshape(21, 21, 3, 4)
    np.testing.assert_array_equal(boxes[2, 5, 1], [5 * 64 - 256, 2 * 61 - 256, 5 * 64 + 256, 2 * 61 + 256])
    in_image = anchors["p6"].in_image[0].reshape(21, 21, 3)
    assert in_image[:13].all() and not in_image[13:].any()
    assert boxes[6, 7, 1, 0] == 7 * 64 - 256


def test_two_sizes_of_anchors_on_each_level():
    """At each cell all ratios of the first size, then of the second, as in Detectron2."""
    sizes = (32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0)
    config = ModelConfig(anchor_sizes=sizes)
    model = nnx.eval_shape(lambda: MaskRCNN(config, num_classes=1, rngs=nnx.Rngs(0)))
    assert model.rpn.cls_logits.kernel.shape[-1] == 6 and model.rpn.bbox_pred.kernel.shape[-1] == 24
    counts = {level: np.array([[64 // s, 64 // s]]) for level, s in model.strides.items()}
    maps = {level: np.zeros((1, 64 // s, 64 // s, 1)) for level, s in model.strides.items()}
    anchors = jax.jit(model.anchors)(Features(maps=maps, sizes=counts), jnp.array([[64, 64]]))
    first = np.concatenate([anchors[level].boxes[0, :6] for level in model.strides])
    sides = np.sqrt((first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1]))
    np.testing.assert_allclose(sides, np.repeat(sizes, 3), rtol=1e-6)
    ratios = (first[:, 3] - first[:, 1]) / (first[:, 2] - first[:, 0])
    np.testing.assert_allclose(ratios, np.tile([0.5, 1, 2], 10), rtol=1e-5)


VARIANTS = {
    "pyramid": {},
    "group norm": {"backbone_norm": "group", "fpn_norm": "group"},
    "C4: one map, stage 5 in the heads": {
        "features": "c4",
        "padding_multiple": 1,
        "backbone_norm": "frozen_batch",
        "anchor_stride": "image",
        "box_pool_size": 14,
        "box_fcs": 0,
        "mask_convs": 0,
    },
    "softmax masks, class-agnostic boxes": {"mask_loss": "softmax", "box_agnostic": True},
    "fully connected, class-agnostic masks": {
        "mask_fcs": 2,
        "mask_convs": 0,
        "mask_fc_channels": 16,
        "mask_agnostic": True,
    },
    "RoIPool": {"roi_pooling": "pool"},
    "DC5: one map of dilated stage 5, RoIWarp": {
        "features": "dc5",
        "padding_multiple": 1,
        "backbone_norm": "frozen_batch",
        "backbone_stride_in_1x1": True,
        "backbone_groups": 2,
        "backbone_group_width": 32,
        "roi_pooling": "warp_max",
    },
    "C5 with a non-local block": {
        "backbone_depth": 18,
        "features": "c5",
        "padding_multiple": 1,  # 70 x 52 pixels are 5 x 4 cells of c4 and 3 x 2 of c5
        "backbone_norm": "group",
        "non_local": "subsampled",
    },
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[] if name.startswith("C4") else [pytest.mark.slow])
        for name, changes in VARIANTS.items()
    ],
)
def test_canvas_size_has_no_effect(changes, tiny_config):
    """An image gives equal outputs on the smallest canvas that fits and on a larger one."""
    depth = 50 if "features" in changes else 18
    changes = {"backbone_depth": depth, "keypoint": False} | changes
    config = dataclasses.replace(tiny_config.model, **changes)
    blueprint = make_blueprint(config, num_classes=2)
    rng = np.random.default_rng(0)
    # Biases and shifts that would make the padding nonzero.
    others = {"scale": 1.0, "var": 1.0, "bias": 0.3, "mean": 0.3}
    weights = {
        name: rng.normal(size=x.shape, scale=np.prod(x.shape[:-1]) ** -0.5).astype(np.float32)
        if name.endswith("kernel")
        else np.full(x.shape, others[name.rpartition(".")[2]], np.float32)
        for name, x in blueprint.shapes().items()
    }
    image = rng.integers(0, 256, (1, 70, 52, 3), dtype=np.uint8)
    padded = tuple(-(-side // config.padding_multiple) * config.padding_multiple for side in (70, 52))
    boxes = jnp.array([[[3.0, 4, 40, 60], [0, 0, 52, 70], [30, 50, 52, 70]]])

    @jax.jit
    def outputs(weights, image):
        model = blueprint.build(weights)
        sizes = jnp.array([[70, 52]])
        features = model.features(image, sizes)
        rpn, anchors = model.rpn(features), model.anchors(features, sizes)
        limits = TestConfig(rpn_pre_nms=50, rpn_post_nms=20)
        proposals = model.propose(rpn, anchors, sizes, limits)
        labels, valid = jnp.array([[1, 2, 1]]), jnp.ones((1, 3), bool)
        return (
            proposals,
            model.box_outputs(features, boxes),
            model.mask_logits(features, boxes, labels, valid),
        )

    found = []
    for height, width in (padded, (128, 96)):
        canvas = np.zeros((1, height, width, 3), np.uint8)
        canvas[:, :70, :52] = image
        found.append(outputs(weights, canvas))
    assert found[0][0].valid.sum() >= 5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *found)


def test_stage_5_of_c4_is_trained_with_the_heads():
    config = ModelConfig(features="c4", box_pool_size=14, box_fcs=0, mask_convs=0)
    names = make_blueprint(config, num_classes=80).shapes()
    assert names["res5.0.conv1.kernel"].shape == (1, 1, 1024, 512)
    assert names["box_head.cls_score.kernel"].shape == (2048, 81)
    assert names["mask_head.conv5_mask.kernel"].shape == (2, 2, 2048, 256)
    assert names["rpn.cls_logits.kernel"].shape == (1, 1, 1024, 15)
    assert not any(name.startswith(("backbone.layer4", "fpn", "box_head.fcs")) for name in names)


@pytest.mark.slow
def test_stage_5_of_c4_may_keep_the_size_of_regions():
    """Paper figure 4, left: regions of 7 x 7 cells, masks of 14 x 14. The weights are those of stride 2."""
    common = {"features": "c4", "backbone_depth": 18, "backbone_width": 8, "box_fcs": 0, "mask_convs": 0}
    config = ModelConfig(**common, res5_stride=1, box_pool_size=7, mask_pool_size=7)
    blueprint = make_blueprint(config, num_classes=3)
    twice = make_blueprint(ModelConfig(**common, box_pool_size=14), num_classes=3)
    assert blueprint.shapes() == twice.shapes()

    def outputs(blueprint, weights):
        model = blueprint.build(weights)
        maps = {"c4": jnp.zeros((1, 8, 8, 32))}
        features = Features(maps=maps, sizes={"c4": jnp.array([[8, 8]])})
        boxes, labels, valid = jnp.ones((1, 2, 4)), jnp.ones((1, 2), int), jnp.ones((1, 2), bool)
        return model.box_outputs(features, boxes), model.mask_logits(features, boxes, labels, valid)

    found = jax.eval_shape(partial(outputs, blueprint), blueprint.shapes())
    assert jax.tree.map(jnp.shape, found) == (((1, 2, 4), (1, 2, 3, 4)), (1, 2, 14, 14))
    assert found == jax.eval_shape(partial(outputs, twice), twice.shapes())
    # With a fully connected layer, the number of cells decides its size.
    for stride, cells in ((1, 49), (2, 16)):
        layer = dataclasses.replace(config, res5_stride=stride, box_fcs=1)
        shapes = make_blueprint(layer, num_classes=3).shapes()
        assert shapes["box_head.fcs.0.kernel"].shape == (64 * cells, 1024)


def test_c5_is_one_map_of_stride_32_with_all_anchors():
    """A canvas of 96 x 128 pixels: 3 x 4 cells with five sizes and three ratios each; the heads of FPN."""
    config = ModelConfig(
        features="c5", backbone_depth=18, backbone_width=8, padding_multiple=1, keypoint=True
    )
    blueprint = make_blueprint(config, num_classes=3, num_keypoints=5)
    shapes = blueprint.shapes()
    assert shapes["rpn.cls_logits.kernel"].shape == (1, 1, 64, 15)
    assert shapes["box_head.fcs.0.kernel"].shape == (7 * 7 * 64, 1024)
    assert shapes["mask_head.convs.layers.0.conv.kernel"].shape == (3, 3, 64, 256)
    assert shapes["keypoint_head.convs.layers.0.conv.kernel"].shape == (3, 3, 64, 512)
    assert not any(name.startswith(("fpn", "res5")) for name in shapes)

    def features_and_rpn(weights, images, sizes):
        model = blueprint.build(weights)
        features = model.features(images, sizes)
        return features, model.rpn(features)

    image, sizes = np.zeros((1, 96, 128, 3), np.uint8), np.array([[70, 64]], np.int32)
    features, rpn = jax.eval_shape(features_and_rpn, shapes, image, sizes)
    assert {level: x.shape for level, x in features.maps.items()} == {"c5": (1, 3, 4, 64)}
    assert rpn["c5"][0].shape == (1, 3 * 4 * 15) and rpn["c5"][1].shape == (1, 3 * 4, 15 * 4)

    # The image has 3 x 2 of the cells.
    features = Features(maps={"c5": jnp.zeros((1, 3, 4, 64))}, sizes={"c5": jnp.array([[3, 2]])})
    model = nnx.eval_shape(lambda: MaskRCNN(config, num_classes=3, num_keypoints=5, rngs=nnx.Rngs(0)))
    anchors = jax.jit(model.anchors)(features, sizes)
    boxes = anchors["c5"].boxes[0].reshape(3, 4, 5, 3, 4)
    # The cell in row 2 and column 1 lies at 32, 64; a square of 128 pixels, and one of 64 twice as high.
    np.testing.assert_allclose(boxes[2, 1, 2, 1], [32 - 64, 64 - 64, 32 + 64, 64 + 64], atol=1e-4)
    wide = 64 / np.sqrt(2)
    np.testing.assert_allclose(
        boxes[2, 1, 1, 2], [32 - wide / 2, 64 - wide, 32 + wide / 2, 64 + wide], atol=1e-4
    )
    np.testing.assert_array_equal(anchors["c5"].in_image[0].reshape(3, 4, 15).all(axis=2)[0], [1, 1, 0, 0])


@pytest.mark.slow
def test_resnext_101_32x8d_group_width():
    config = ModelConfig(backbone_depth=101, backbone_groups=32, backbone_group_width=8)
    names = make_blueprint(config, num_classes=80).shapes()
    assert names["backbone.layer1.0.conv2.kernel"].shape == (3, 3, 8, 256)
    assert names["backbone.layer4.2.conv2.kernel"].shape == (3, 3, 64, 2048)
