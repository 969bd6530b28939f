"""The losses of a model whose outputs are written down."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import Config, ModelConfig, TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.boxes import encode_boxes
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training.objective import _trained_classes, compute_losses
from mrcnn_jax.training.targets import RegionTargets
from mrcnn_jax.types import Batch, Features, GroundTruth, Proposals

# Samples enough for every candidate, so that nothing is left to chance.
TAKE_ALL = TrainConfig(
    rpn_samples=16, roi_samples=8, roi_positive_fraction=0.5, rpn_pre_nms=7, rpn_post_nms=5
)
DEFAULT = ModelConfig()
SURE = 50.0  # a logit whose loss is nothing if it is right


def losses_of(outputs, batch, key, config, model=DEFAULT):
    """The losses of a model that gives ``outputs``, whatever it sees, and what each stage was asked."""
    asked = {}

    class Scripted(MaskRCNN):
        def __init__(self):
            pass

        def features(self, images, image_sizes, keys):
            assert keys is None  # as there is no drop path
            asked["features"] = image_sizes
            return Features(maps={"p2": jnp.zeros((len(images), 1, 1, 1))}, sizes={})

        def anchors(self, features, image_sizes):
            asked["anchors"] = image_sizes
            return outputs["anchors"]

        def rpn(self, features):
            return outputs["rpn"]

        def propose(self, rpn_outputs, anchors, image_sizes, config):
            asked["propose"] = image_sizes, config.rpn_pre_nms, config.rpn_post_nms, config.rpn_nms_iou
            return outputs["proposals"]

        def region_features(self, features):
            return features

        def box_outputs(self, features, boxes, valid=None, *, stage=0):
            asked[f"box {stage}" if stage else "box"] = boxes, valid
            return outputs["cascade"][stage - 1] if stage else (outputs["logits"], outputs["deltas"])

        def mask_logits(self, features, boxes, labels, valid, *, stage=0):
            asked[f"mask {stage}" if stage else "mask"] = boxes, labels, valid
            return outputs["mask"] * (1 - stage)  # 0 of a second head: undecided

        def mask_log_probabilities(self, features, boxes, labels, valid):
            asked["mask"] = boxes, labels, valid
            return outputs["mask"]

        def keypoint_logits(self, features, boxes, valid):
            asked["keypoint"] = boxes, valid
            return outputs["keypoint"]

    return compute_losses(Scripted(), batch, key, Config(model=model, train=config)), asked


def compiled(config, **parts):
    model = ModelConfig(**parts)
    return jax.jit(lambda outputs, batch, key: losses_of(outputs, batch, key, config, model))


AS_DETECTRON2 = compiled(TAKE_ALL)
AS_TORCHVISION = compiled(
    dataclasses.replace(
        TAKE_ALL, rpn_normalizer="sampled", rpn_beta=1.0, box_beta=0.5, mask_soft_targets=True
    )
)
KEY = jax.random.key(0)

# Two images: in the first a small object, and one whose upper half is cut off; in the second an object
# without a mask, and a row of padding.
GT_BOXES = np.array([[[6, 0, 16.1, 10], [20, 20, 40, 40]], [[50, 50, 60, 70], [1, 2, 3, 4]]], np.float32)
KEYPOINTS = [
    [[[6, 0, 2], [16, 9, 1]], [[21, 21, 2], [39, 39, 0]]],
    [[[59, 51, 1], [59, 69, 2]], [[2, 3, 2]] * 2],
]
ANCHORS = np.array(
    [
        [[6, 0, 16, 9], [70, 70, 80, 80], [20, 20, 40, 44]],  # IoU .89 with the first object, none, .83
        [[50, 50, 60, 70], [0, 0, 8, 8], [90, 90, 99, 99]],  # IoU 1, none; the last is beyond the image
    ],
    np.float32,
)
# IoUs of .67 and .4 with the object that was cut, of .8 and .4 with the third.
PROPOSALS = np.array(
    [[[20, 20, 40, 33.47], [20, 20, 40, 28]], [[50, 50, 60, 66], [50, 50, 60, 58]]], np.float32
)

# So the regions are, in this order: a proposal, the objects themselves, the other proposal; padding.
IMAGE = np.arange(2)[:, None]
REGIONS = np.concatenate([PROPOSALS, GT_BOXES], axis=1)[IMAGE, [[0, 2, 3, 1], [0, 2, 1, 3]]]
OBJECT = [[1, 0, 1, 1], [0, 0, 0, 0]]
LABELS = [[2, 1, 2, 0], [3, 3, 0, 0]]
POSITIVE = np.array([[True, True, True, False], [True, True, False, False]])
SAMPLED = np.array([[True] * 4 + [False] * 4, [True] * 3 + [False] * 5])


def make_batch():
    masks = np.zeros((2, 2, 4, 4), np.uint8)
    masks[0, 0, :, 1] = 1  # half of the left cells, rounded to a little less
    masks[0, 1, 2] = 1
    mask_boxes = GT_BOXES.copy()
    mask_boxes[0, 1] = 20, 0, 40, 40
    return Batch(
        images=np.zeros((2, 100, 100, 3), np.uint8),
        image_sizes=np.array([[100, 90], [80, 100]], np.int32),
        ids=None,
        gt=GroundTruth(
            boxes=GT_BOXES,
            labels=np.array([[1, 2], [3, 2]], np.int32),
            crowd=np.zeros((2, 2), bool),
            valid=np.array([[True, True], [True, False]]),
            masks=masks,
            mask_boxes=mask_boxes,
            keypoints=np.array(KEYPOINTS, np.float32),
        ),
    )


def right_outputs():
    """Right wherever it counts; elsewhere they would cost a lot."""
    objectness = np.array([[SURE, -SURE, SURE], [SURE, -SURE, SURE]], np.float32)
    anchor_deltas = encode_boxes(
        jnp.array(GT_BOXES[IMAGE, [[0, 0, 1], [0, 0, 0]]]), jnp.array(ANCHORS), (1.0, 1.0, 1.0, 1.0)
    )
    anchor_deltas = jnp.where(jnp.array([[1, 0, 1], [1, 0, 0]])[..., None] > 0, anchor_deltas, 9.0)

    logits = np.full((2, 8, 4), (0, 0, 0, SURE), np.float32)
    logits[SAMPLED] = SURE * np.eye(4)[np.array(LABELS)[SAMPLED[:, :4]]]
    deltas = np.full((2, 8, 3, 4), 9, np.float32)
    image, row = np.nonzero(POSITIVE)
    deltas[image, row, np.array(LABELS)[POSITIVE] - 1] = encode_boxes(
        jnp.array(GT_BOXES[IMAGE, OBJECT]), jnp.array(REGIONS), (10.0, 10.0, 5.0, 5.0)
    )[POSITIVE]

    mask = np.full((2, 4, 2, 2), SURE, np.float32)
    mask[0, [0, 2]] = [[SURE, SURE], [-SURE, -SURE]]  # the object that was cut
    mask[0, 1] = [[SURE, -SURE], [SURE, -SURE]]
    mask[0, 3] = -SURE

    keypoint = np.zeros((2, 4, 2, 2, 2), np.float32)
    keypoint[:, :, 1, 0] = SURE  # where no keypoint is
    for image, row, y, x, point in [
        (0, 0, 0, 0, 0),
        (0, 1, 0, 0, 0),
        (0, 1, 1, 1, 1),
        (0, 2, 0, 0, 0),
        (1, 0, 0, 1, 0),
        (1, 1, 0, 1, 0),
        (1, 1, 1, 1, 1),
    ]:
        keypoint[image, row, 1, 0, point], keypoint[image, row, y, x, point] = 0, SURE
    return {
        "anchors": {
            "p2": Anchors(jnp.array(ANCHORS[:, :2]), jnp.ones((2, 2), bool)),
            "p3": Anchors(jnp.array(ANCHORS[:, 2:]), jnp.array([[True], [False]])),
        },
        "rpn": {
            "p2": (objectness[:, :2], anchor_deltas[:, :2]),
            "p3": (objectness[:, 2:], anchor_deltas[:, 2:]),
        },
        "proposals": Proposals(jnp.array(PROPOSALS), jnp.zeros((2, 2)), jnp.ones((2, 2), bool)),
        "logits": logits,
        "deltas": deltas,
        "mask": mask,
        "keypoint": keypoint,
    }


def undecided_outputs():
    """A model's outputs that prefer no class or cell; every box misses its object by a quarter of a delta."""
    right = right_outputs()
    outputs = jax.tree.map(jnp.zeros_like, right) | {name: right[name] for name in ("anchors", "proposals")}
    outputs["rpn"] = {
        level: (0 * objectness, deltas + jnp.array([0.25, 0, 0, 0]))
        for level, (objectness, deltas) in right["rpn"].items()
    }
    outputs["deltas"] = right["deltas"] + jnp.array([0.25, 0, 0, 0])
    outputs["mask"] = jnp.ones_like(right["mask"])
    return outputs


def test_a_model_that_is_right_has_no_loss():
    losses, _ = AS_DETECTRON2(right_outputs(), make_batch(), KEY)
    assert set(losses) == {"rpn_objectness", "rpn_box", "box_class", "box", "mask", "keypoint"}
    for name, loss in losses.items():
        assert abs(float(loss)) < 1e-5, name


def test_what_the_stages_are_asked():
    batch = make_batch()
    _, asked = AS_DETECTRON2(right_outputs(), batch, KEY)
    for stage in ("features", "anchors"):
        np.testing.assert_array_equal(asked[stage], batch.image_sizes)
    np.testing.assert_array_equal(asked["propose"][0], batch.image_sizes)
    assert [float(x) for x in asked["propose"][1:]] == pytest.approx([7, 5, 0.7])
    boxes, valid = asked["box"]
    np.testing.assert_array_equal(boxes[:, :4], REGIONS)
    np.testing.assert_array_equal(valid, SAMPLED)
    for stage in ("mask", "keypoint"):
        np.testing.assert_array_equal(asked[stage][0], REGIONS)
        np.testing.assert_array_equal(asked[stage][-1], POSITIVE)
    np.testing.assert_array_equal(asked["mask"][1], LABELS)


def test_an_rpn_alone_has_its_losses_only():
    losses, asked = compiled(TAKE_ALL, box=False, mask=False)(undecided_outputs(), make_batch(), KEY)
    wanted, _ = AS_DETECTRON2(undecided_outputs(), make_batch(), KEY)
    assert set(losses) == {"rpn_objectness", "rpn_box"} and set(asked) == {"features", "anchors"}
    for name, loss in losses.items():
        np.testing.assert_array_equal(loss, wanted[name])


def test_proposals_of_the_batch_take_the_place_of_the_rpns():
    outputs, batch = undecided_outputs(), make_batch()
    given = batch.replace(proposals=outputs["proposals"])
    without_rpn = compiled(TAKE_ALL, rpn=False)
    losses, asked = without_rpn(outputs, given, KEY)
    wanted, of_all = AS_DETECTRON2(outputs, batch, KEY)
    assert set(losses) == {"box_class", "box", "mask", "keypoint"} and "anchors" not in asked
    for name, loss in losses.items():
        np.testing.assert_array_equal(loss, wanted[name])
    np.testing.assert_array_equal(asked["box"][0], of_all["box"][0])
    with pytest.raises(ValueError, match=r"no RPN \(model\.rpn is False\), so the batch must have proposals"):
        without_rpn(outputs, batch, KEY)


def test_losses_by_hand():
    outputs = undecided_outputs()
    # 3 positive anchors of 5 in two samples of 16; 5 positive regions of 7; masks of 3 of these, of 4 cells.
    losses, _ = AS_DETECTRON2(outputs, make_batch(), KEY)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {
            "rpn_objectness": 5 * np.log(2) / 32,
            "rpn_box": 3 * 0.25 / 32,
            "box_class": np.log(4),
            "box": 5 * 0.25 / 7,
            "mask": np.log(1 + np.e) - 6 / 12,
            "keypoint": np.log(4),
        },
        rel=1e-5,
    )
    # The first region's cells are 20 + 13.47 / 4 and 20 + 13.47 * 3 / 4 pixels down the mask of 4 rows of 10
    # pixels, of which the third is set: 1.83675 and 2.51025 rows beyond the centre of the first row.
    losses, _ = AS_TORCHVISION(outputs, make_batch(), KEY)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {
            "rpn_objectness": np.log(2),
            "rpn_box": 3 * 0.25**2 / 2 / 5,
            "box_class": np.log(4),
            "box": 5 * 0.25**2 / 2 / 0.5 / 7,
            "mask": np.log(1 + np.e) - (2 * 0.83675 + 2 * 0.48975 + 2 * 0.5 + 2) / 12,
            "keypoint": np.log(4),
        },
        rel=1e-5,
    )


def test_the_weights_of_the_rpns_and_the_box_losses():
    plain, _ = AS_DETECTRON2(undecided_outputs(), make_batch(), KEY)
    weights = {"rpn_box_loss_weight": 2.0, "rpn_objectness_weight": 0.5, "box_loss_weight": 10.0}
    changed = dataclasses.replace(TAKE_ALL, **weights)
    weighted, _ = compiled(changed)(undecided_outputs(), make_batch(), KEY)
    expected = {name: float(loss) for name, loss in plain.items()}
    expected |= {"rpn_box": 2 * expected["rpn_box"], "box": 10 * expected["box"]}
    expected["rpn_objectness"] /= 2
    assert {name: float(loss) for name, loss in weighted.items()} == pytest.approx(expected, rel=1e-5)


def test_the_keypoint_loss_alone_has_the_weight():
    outputs = undecided_outputs()
    plain, _ = AS_DETECTRON2(outputs, make_batch(), KEY)
    weighted, _ = compiled(dataclasses.replace(TAKE_ALL, keypoint_weight=0.25))(outputs, make_batch(), KEY)
    assert {name: float(loss) for name, loss in weighted.items()} == pytest.approx(
        {name: float(loss) for name, loss in plain.items()} | {"keypoint": np.log(4) / 4}, rel=1e-5
    )


def test_the_mask_loss_of_a_softmax_by_hand():
    outputs = undecided_outputs()
    of_label = np.array([[0.5, 0.4], [0.3, 0.2]])
    probabilities = np.stack([of_label, np.full((2, 2), 0.1)], axis=-1)  # of the label and the background
    outputs["mask"] = np.tile(np.log(probabilities).astype(np.float32), (2, 4, 1, 1, 1))
    losses, asked = compiled(TAKE_ALL, mask_loss="softmax")(outputs, make_batch(), KEY)
    # Two regions have the upper cells of their object, one the left ones; half of all cells are background.
    expected = -(2 * np.log(0.5 * 0.4) + np.log(0.5 * 0.3) + 6 * np.log(0.1)) / 12
    assert float(losses["mask"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(asked["mask"][1], LABELS)


def test_sigmoids_of_the_categories_that_an_image_has_drawn():
    """Of 4 and 3 regions; the first image has categories 1 and 2, the second 3, and both the background."""
    for count, (first, second) in {0: (3, 3), 1: (2, 1), 2: (2, 1), 3: (2, 2), 4: (3, 3)}.items():
        train = dataclasses.replace(TAKE_ALL, federated_classes=count)
        losses, _ = compiled(train, box_scores="sigmoid")(undecided_outputs(), make_batch(), KEY)
        expected = (4 * first + 3 * second) / 7 * np.log(2)
        assert float(losses["box_class"]) == pytest.approx(expected, rel=1e-5)
        assert float(losses["box"]) == pytest.approx(5 * 0.25 / 7, rel=1e-5)


def test_draws_of_categories_depend_on_the_image_and_on_their_counts():
    """Also on several devices."""
    shape = (8, 4)
    regions = RegionTargets(
        boxes=jnp.zeros((*shape, 4)),
        assignment=jnp.full(shape, Assignment.NEGATIVE, jnp.int32),
        labels=jnp.zeros(shape, jnp.int32),
        gt_index=jnp.zeros(shape, jnp.int32),
    )
    config = Config(train=TrainConfig(federated_classes=4, federated_power=0.5))
    counts = jnp.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1e30, 0])
    keys = jax.random.split(KEY, 8)
    draw = jax.jit(lambda keys, regions: _trained_classes(keys, regions, counts, config))
    found = np.asarray(draw(keys, regions))
    assert found.shape == (8, 4, 10) and (found == found[:, :1]).all()
    assert (found[:, 0].sum(axis=1) == 3).all()  # the background is the fourth
    assert found[:, 0, 8].all() and not found[:, 0, 9].any()
    assert len(np.unique(found[:, 0], axis=0)) > 2
    with jax.set_mesh(make_mesh()):
        on_many = jax.jit(lambda keys, regions: _trained_classes(keys, regions, counts, config))(
            keys, regions
        )
    np.testing.assert_array_equal(on_many, found)


def test_class_agnostic_boxes_are_trained_on_every_label():
    outputs = undecided_outputs()
    right = right_outputs()
    labels = np.maximum(np.array(LABELS) - 1, 0)
    own = np.take_along_axis(right["deltas"][:, :4], labels[..., None, None], axis=2)
    outputs["deltas"] = jnp.pad(own, [(0, 0), (0, 4), (0, 0), (0, 0)], constant_values=9)
    losses, _ = AS_DETECTRON2(outputs, make_batch(), KEY)
    assert abs(float(losses["box"])) < 1e-5
    assert float(losses["box_class"]) == pytest.approx(np.log(4), rel=1e-5)


CASCADE = compiled(
    dataclasses.replace(TAKE_ALL, cascade_positive_ious=(0.9,)),
    box_agnostic=True,
    box_cascade=((20.0, 20.0, 10.0, 10.0),),
)


def test_a_cascade_goes_on_with_the_boxes_of_its_first_head():
    """The first head moves every positive region onto its object, and the second has nothing left to do."""
    outputs = right_outputs()
    encoded = encode_boxes(jnp.array(GT_BOXES[IMAGE, OBJECT]), jnp.array(REGIONS), (10.0, 10.0, 5.0, 5.0))
    deltas = np.where(POSITIVE[..., None], encoded, 0)[:, :, None]
    outputs["deltas"] = np.pad(deltas, [(0, 0), (0, 4), (0, 0), (0, 0)])
    outputs["cascade"] = [(outputs["logits"], jnp.zeros((2, 8, 1, 4)))]
    losses, asked = CASCADE(outputs, make_batch(), KEY)
    assert set(losses) - {"rpn_objectness", "rpn_box", "mask", "keypoint"} == {
        *("box_class", "box", "box_class_2", "box_2")
    }
    for name, loss in losses.items():
        assert abs(float(loss)) < 1e-5, name
    boxes, valid = asked["box 1"]
    moved = np.where(POSITIVE[..., None], GT_BOXES[IMAGE, OBJECT], REGIONS)
    np.testing.assert_allclose(np.asarray(boxes)[:, :4][SAMPLED[:, :4]], moved[SAMPLED[:, :4]], atol=1e-4)
    np.testing.assert_array_equal(valid, SAMPLED)
    np.testing.assert_array_equal(asked["mask"][0], REGIONS)


def test_the_losses_of_a_cascades_second_head_by_hand():
    """Its regions are those of the first. Only the three objects themselves have an IoU of .9 with one."""
    outputs = undecided_outputs()
    outputs["deltas"] = jnp.zeros((2, 8, 1, 4))
    outputs["cascade"] = [(jnp.zeros((2, 8, 4)), jnp.zeros((2, 8, 1, 4)) + jnp.array([0.25, 0, 0, 0]))]
    losses, _ = CASCADE(outputs, make_batch(), KEY)
    assert float(losses["box_class_2"]) == pytest.approx(np.log(4), rel=1e-5)
    assert float(losses["box_2"]) == pytest.approx(3 * 0.25 / 7, rel=1e-5)


def test_each_mask_head_of_a_cascade_learns_from_the_regions_of_its_box_head():
    """The first box head moves every positive region onto its object, so that IoUs of .9 are exceeded."""
    outputs = right_outputs()
    encoded = encode_boxes(jnp.array(GT_BOXES[IMAGE, OBJECT]), jnp.array(REGIONS), (10.0, 10.0, 5.0, 5.0))
    deltas = np.where(POSITIVE[..., None], encoded, 0)[:, :, None]
    outputs["deltas"] = np.pad(deltas, [(0, 0), (0, 4), (0, 0), (0, 0)])
    outputs["cascade"] = [(outputs["logits"], jnp.zeros((2, 8, 1, 4)))]
    model = {"box_agnostic": True, "box_cascade": ((20.0, 20.0, 10.0, 10.0),), "mask_cascade": True}
    train = dataclasses.replace(TAKE_ALL, cascade_positive_ious=(0.9,))
    losses, asked = compiled(train, **model)(outputs, make_batch(), KEY)
    assert abs(float(losses["mask"])) < 1e-5
    assert float(losses["mask_2"]) == pytest.approx(np.log(2), rel=1e-5)
    np.testing.assert_array_equal(asked["mask"][0], REGIONS)
    boxes, _, positive = map(np.asarray, asked["mask 1"])
    assert positive.sum() == np.asarray(asked["mask"][2]).sum() > 0
    for image, objects in enumerate(GT_BOXES):
        distance = np.abs(boxes[image][positive[image], None] - objects).max(axis=-1).min(axis=1)
        assert (distance < 1e-4).all()


def test_every_image_and_stage_has_a_sample_of_its_own():
    """Of 16 negatives that are the same in both images, for anchors and regions."""
    boxes = jnp.tile(10.0 * jnp.arange(16)[None, :, None] + jnp.array([0.0, 0, 8, 8]), (2, 1, 1))
    none = GroundTruth(
        boxes=jnp.zeros((2, 2, 4)),
        labels=jnp.zeros((2, 2), jnp.int32),
        crowd=jnp.zeros((2, 2), bool),
        valid=jnp.zeros((2, 2), bool),
    )
    anchors = Anchors(jnp.pad(boxes, [(0, 0), (0, 2), (0, 0)]), jnp.tile(jnp.arange(18) < 16, (2, 1)))
    outputs = {
        "anchors": {"p2": anchors},
        "proposals": Proposals(boxes, jnp.zeros((2, 16)), jnp.ones((2, 16), bool)),
        "logits": jnp.zeros((2, 4, 4)),
        "deltas": jnp.zeros((2, 4, 3, 4)),
    }
    config = TrainConfig(rpn_samples=4, roi_samples=4)

    @jax.jit
    def draw(key):
        def loss(objectness):
            rpn = {"p2": (objectness, jnp.zeros((2, 18, 4)))}
            losses, asked = losses_of(outputs | {"rpn": rpn}, make_batch().replace(gt=none), key, config)
            return losses["rpn_objectness"], asked["box"][0]

        return jax.grad(loss, has_aux=True)(jnp.zeros((2, 18)))

    samples = []
    for seed in (0, 1):
        gradient, regions = draw(jax.random.key(seed))
        samples += [np.flatnonzero(of_image).tolist() for of_image in gradient]
        samples += [(of_image[:, 0] / 10).tolist() for of_image in np.asarray(regions)]
    assert {len(sample) for sample in samples} == {4}
    assert len({frozenset(sample) for sample in samples}) == 8
