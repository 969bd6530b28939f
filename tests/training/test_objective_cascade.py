"""The losses of cascades whose outputs are written down."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.boxes import encode_boxes
from tests.training.scripted import (
    GT_BOXES,
    IMAGE,
    KEY,
    OBJECT,
    POSITIVE,
    REGIONS,
    SAMPLED,
    TAKE_ALL,
    compiled,
    make_batch,
    right_outputs,
    undecided_outputs,
)

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
