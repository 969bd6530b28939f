"""The losses of a model whose outputs are written down."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.models.rpn import Anchors
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training.objective import _trained_classes
from mrcnn_jax.training.targets import RegionTargets
from mrcnn_jax.types import GroundTruth, Proposals
from tests.training.scripted import (
    AS_DETECTRON2,
    AS_TORCHVISION,
    KEY,
    LABELS,
    POSITIVE,
    REGIONS,
    SAMPLED,
    TAKE_ALL,
    compiled,
    losses_of,
    make_batch,
    right_outputs,
    undecided_outputs,
)


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


@pytest.mark.slow
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
