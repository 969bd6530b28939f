import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops.masks import label_log_probabilities
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training import losses
from mrcnn_jax.training.losses import smooth_l1


def means(sum_losses, *static):
    """``sum_losses``, divided by its count, and jitted."""
    return jax.jit(lambda *rows, **settings: sum_losses(*rows, **settings).means(), static_argnames=static)


rpn_loss = means(losses.rpn_loss, "samples", "box_weights", "beta", "kind")
box_loss = means(losses.box_loss, "box_weights", "beta", "kind")
mask_loss, keypoint_loss = means(losses.mask_loss), means(losses.keypoint_loss, "count")
softmax_mask_loss = means(losses.softmax_mask_loss)
POSITIVE, NEGATIVE, IGNORE = Assignment.POSITIVE, Assignment.NEGATIVE, Assignment.IGNORE


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.0, [0.5, 2.0]), (1.0, [0.125, 1.5]), (4.0, [0.03125, 0.5])]
)
def test_smooth_l1_by_hand(beta, expected):
    np.testing.assert_allclose(smooth_l1(jnp.array([-0.5, 2.0]), beta), expected)


def _rpn(objectness, assignment, deltas=None, samples=4):
    anchors = np.array([[[0, 0, 10, 10]] * len(assignment)], np.float32)
    gt_boxes = np.array([[[5, 0, 15, 10]] * len(assignment)], np.float32)
    deltas = np.zeros((1, len(assignment), 4)) if deltas is None else deltas
    return rpn_loss(
        np.array([objectness]),
        deltas,
        anchors,
        np.array([assignment]),
        gt_boxes,
        samples=samples,
        box_weights=(1.0, 1.0, 1.0, 1.0),
        beta=0.0,
    )


def test_rpn_by_hand():
    found = _rpn([0.0, 2.0, -7.0], [POSITIVE, NEGATIVE, IGNORE])
    # -log(sigmoid(0)) and -log(1 - sigmoid(2)) over 4 samples; dx = 5 / 10 of the one positive
    np.testing.assert_allclose(found["rpn_objectness"], (np.log(2) + np.log1p(np.exp(2))) / 4, rtol=1e-6)
    np.testing.assert_allclose(found["rpn_box"], 0.5 / 4)


def test_rpn_divided_by_the_anchors_that_were_sampled():
    found = _rpn([0.0, 2.0, -7.0], [POSITIVE, NEGATIVE, IGNORE], samples=None)
    np.testing.assert_allclose(found["rpn_objectness"], (np.log(2) + np.log1p(np.exp(2))) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["rpn_box"], 0.5 / 2)


def _box(logits, deltas, assignment, labels, **settings):
    regions = np.array([[0, 0, 10, 10]] * len(assignment), np.float32)
    gt_boxes = np.array([[1, 0, 11, 10]] * len(assignment), np.float32)
    return box_loss(
        np.array(logits),
        np.array(deltas),
        regions,
        np.array(assignment),
        np.array(labels),
        gt_boxes,
        box_weights=(10.0, 10.0, 5.0, 5.0),
        beta=0.0,
        **settings,
    )


def test_box_by_hand():
    # two categories; the positive's target is dx = .1 * 10 = 1, read from the deltas of category 2
    deltas = [[[9.0] * 4, [0.5, 0, 0, 0.25]], [[7.0] * 4] * 2, [[7.0] * 4] * 2]
    logits = [[0.0, 0.0, 0.0], [np.log(2.0), 0.0, 0.0], [5.0, 0.0, 0.0]]
    found = _box(logits, deltas, [POSITIVE, NEGATIVE, IGNORE], [2, 0, 0])
    np.testing.assert_allclose(found["box_class"], (np.log(3) + np.log(2)) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["box"], (0.5 + 0.25) / 2, rtol=1e-5)


def test_class_agnostic_boxes_by_hand():
    # one set of deltas, whatever the label
    deltas = [[[0.5, 0, 0, 0.25]], [[0.75, 0, 0, 0]], [[7.0] * 4]]
    found = _box(np.zeros((3, 4)), deltas, [POSITIVE, POSITIVE, NEGATIVE], [3, 1, 0])
    np.testing.assert_allclose(found["box_class"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(found["box"], (0.5 + 0.25 + 0.25) / 3, rtol=1e-5)


def test_generalised_iou_by_hand():
    """Regions of 10 x 10 whose boxes are a pixel to the right: IoUs of 90 / 110, in frames that they fill."""
    deltas = np.zeros((3, 1, 4))
    found = _box(np.zeros((3, 4)), deltas, [POSITIVE, NEGATIVE, POSITIVE], [3, 0, 1], kind="giou")
    np.testing.assert_allclose(found["box"], 2 * (1 - 90 / 110) / 3, rtol=1e-6)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradient_of_losses_by_iou(kind):
    """Against differences. Rows that are not positive have none, whatever they hold."""
    rng = np.random.default_rng(0)
    anchors = np.array([[0, 0, 10, 10], [20, 20, 30, 50], [np.nan] * 4], np.float32)
    gt_boxes = np.array([[2, 1, 11, 12], [60, 20, 70, 50], [np.inf] * 4], np.float32)
    assignment = np.array([POSITIVE, POSITIVE, NEGATIVE])

    def loss(deltas):
        settings = dict(samples=None, box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.0, kind=kind)
        found = rpn_loss(
            np.zeros((1, 3), np.float32), deltas, anchors[None], assignment[None], gt_boxes[None], **settings
        )
        return found["rpn_box"]

    deltas = rng.normal(0, 0.1, (1, 3, 4)).astype(np.float32)
    gradient = jax.jit(jax.grad(loss))(deltas)
    assert np.isfinite(gradient).all() and not gradient[0, 2].any()
    loss = jax.jit(loss)
    for row, column in np.ndindex(2, 4):
        step = np.zeros_like(deltas)
        step[0, row, column] = 0.01
        difference = (loss(deltas + step) - loss(deltas - step)) / 0.02
        np.testing.assert_allclose(gradient[0, row, column], difference, rtol=0.02, atol=1e-4)


def test_mask_by_hand():
    # the first region's map is undecided; the second's would cost, but is no positive
    logits = np.stack([np.zeros((2, 2)), np.full((2, 2), 50.0)])
    targets = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = mask_loss(logits, targets, np.array([True, False]))["mask"]
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def test_softmax_mask_by_hand():
    # of label and background, in four cells of which the upper are the object's; the second is no positive
    p = np.array([[[[0.5, 0.2], [0.25, 0.2]], [[0.1, 0.8], [0.2, 0.4]]], np.full((2, 2, 2), 1e-9)])
    targets = np.array([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = softmax_mask_loss(np.log(p), targets, np.array([True, False]))["mask"]
    np.testing.assert_allclose(loss, -np.log([0.5, 0.25, 0.8, 0.4]).mean(), rtol=1e-6)
    # a soft target: a quarter of a cell is the object's
    targets[0] = 0.25
    loss = softmax_mask_loss(np.log(p), targets, np.array([True, False]))["mask"]
    expected = -(0.25 * np.log([0.5, 0.25, 0.1, 0.2]) + 0.75 * np.log([0.2, 0.2, 0.8, 0.4])).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_gradient_of_the_softmax_mask_loss(soft):
    """Of the logits of all classes, against differences; that of a region that is no positive is zero."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    labels, positive = jnp.array([3, 1, 0]), jnp.array([True, True, False])
    targets = rng.uniform(size=(3, 2, 2)).astype(np.float32)
    targets = jnp.array(targets if soft else np.round(targets))

    @jax.jit
    def loss(logits):
        return softmax_mask_loss(label_log_probabilities(logits, labels), targets, positive)["mask"]

    gradient = np.asarray(jax.jit(jax.grad(loss))(logits))
    step = 0.05
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        difference = (loss(logits + moved) - loss(logits - moved)) / (2 * step)
        np.testing.assert_allclose(gradient[index], difference, atol=1e-4, err_msg=str(index))
    np.testing.assert_array_equal(gradient[2], 0)
    # By theory: the probabilities less the target's distribution, a mean over 8 cells.
    distribution = np.eye(4)[labels[:, None, None]] * targets[..., None]
    distribution += np.eye(4)[0] * (1 - targets[..., None])
    np.testing.assert_allclose(gradient[:2], (jax.nn.softmax(logits) - distribution)[:2] / 8, atol=1e-6)


def test_keypoint_by_hand():
    logits = np.zeros((1, 2, 2, 2))
    logits[0, 1, 0, 0] = np.log(5)  # keypoint 0 prefers cell 2
    loss = keypoint_loss(logits, np.array([[2, 3]]), np.array([[True, False]]))["keypoint"]
    np.testing.assert_allclose(loss, np.log(8 / 5), rtol=1e-6)
    both = keypoint_loss(logits, np.array([[2, 3]]), np.array([[True, True]]))["keypoint"]
    np.testing.assert_allclose(both, (np.log(8 / 5) + np.log(4)) / 2, rtol=1e-6)
    fixed = keypoint_loss(logits, np.array([[2, 3]]), np.array([[True, False]]), count=8)["keypoint"]
    np.testing.assert_allclose(fixed, np.log(8 / 5) / 8, rtol=1e-6)


def test_sums_of_parts_divided_by_the_count_of_the_whole():
    found = losses.LossSums({"a": jnp.array(3.0), "b": jnp.array(1.0)}, jnp.array(2))
    assert {name: float(x) for name, x in found.means().items()} == {"a": 1.5, "b": 0.5}
    assert {name: float(x) for name, x in found.means(jnp.array(4)).items()} == {"a": 0.75, "b": 0.25}
    assert float(losses.LossSums(found.sums, jnp.array(0)).means()["a"]) == 3


def test_nothing_to_learn_costs_nothing_and_has_no_gradient():
    def total(logits, deltas, maps):
        none, labels, no = np.array([IGNORE, IGNORE]), np.array([0, 0]), np.array([False, False])
        boxes = np.zeros((2, 4))  # degenerate, as padding is
        settings = {"box_weights": (1.0, 1.0, 1.0, 1.0), "beta": 0.0}
        rpn = (logits[None, :, 0], deltas[None, :, 0], boxes[None], none[None], boxes[None])
        found = rpn_loss(*rpn, samples=4, **settings)
        found |= box_loss(logits, deltas, boxes, none, labels, boxes, **settings)
        found |= mask_loss(maps[..., 0], np.full((2, 3, 3), np.nan), no)
        found["softmax mask"] = softmax_mask_loss(maps, np.full((2, 3, 3), np.nan), no)["mask"]
        found |= keypoint_loss(maps, np.zeros((2, 2), np.int32), np.zeros((2, 2), bool))
        return sum(found.values())

    arguments = (np.full((2, 3), 3.0), np.full((2, 2, 4), 3.0), np.full((2, 3, 3, 2), 3.0))
    loss, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*arguments)
    assert float(loss) == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)
