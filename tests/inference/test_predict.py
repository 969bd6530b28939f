import dataclasses
import functools
from functools import partial

import jax
import numpy as np
import pytest

from mrcnn_jax.config import TestConfig
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.predict import predict, predict_proposals, select_detections
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.types import Proposals


def _select(boxes, probabilities, valid=None, **changes):
    """Detections from proposals with zero deltas and their class probabilities, background first.

    There are always 5 proposals and 2 categories, so tests with the same settings share a program.
    """
    missing = 5 - len(boxes)
    valid = np.pad([True] * len(boxes) if valid is None else valid, (0, missing))
    boxes = np.pad(np.array(boxes, np.float32), [(0, missing), (0, 0)])
    probabilities = np.array(probabilities)
    probabilities = np.pad(probabilities, [(0, missing), (0, 3 - probabilities.shape[1])])
    proposals = Proposals(boxes=boxes, scores=np.zeros(5, np.float32), valid=valid)
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    select = _selection(**({"detections": 4} | changes))
    return jax.device_get(select(proposals, (logits,), np.zeros((5, 2, 4)), np.array([100, 100])))


@functools.cache
def _selection(scores_of="softmax", **settings):
    config, weights = TestConfig(**settings), (10.0, 10.0, 5.0, 5.0)
    return jax.jit(partial(select_detections, config=config, box_weights=weights, scores_of=scores_of))


A, NEAR_A, B = [0, 0, 20, 20], [2, 0, 22, 20], [50, 50, 90, 90]


def test_nms_is_per_category():
    found = _select([A, NEAR_A, B], [[0.1, 0.6, 0.3], [0.2, 0.7, 0.1], [0.5, 0.02, 0.48]])
    # NEAR_A suppresses A in category 1 but not in category 2; .02 is under the score threshold.
    np.testing.assert_allclose(found.scores, [0.7, 0.48, 0.3, 0], atol=1e-6)
    assert found.labels.tolist() == [1, 2, 2, 0]
    assert found.valid.tolist() == [True, True, True, False]
    np.testing.assert_allclose(found.boxes, [NEAR_A, B, A, [0, 0, 0, 0]], atol=1e-5)


def test_one_proposal_may_give_two_categories():
    found = _select([B], [[0.1, 0.5, 0.4]])
    assert found.labels.tolist()[:2] == [1, 2]


def test_the_scores_of_a_cascade_are_means():
    proposals = Proposals(boxes=np.array([A, B], np.float32), scores=np.zeros(2), valid=np.ones(2, bool))
    heads = np.log([[[0.1, 0.9], [0.8, 0.2]], [[0.5, 0.5], [0.9, 0.1]], [[0.4, 0.6], [0.4, 0.6]]])
    select = _selection(detections=2)
    found = select(proposals, tuple(heads), np.zeros((2, 1, 4)), np.array([100, 100]))
    np.testing.assert_allclose(found.scores, [2 / 3, 0.3], atol=1e-6)


def test_sigmoids_are_scores_whatever_the_background():
    proposals = Proposals(boxes=np.array([A, B], np.float32), scores=np.zeros(2), valid=np.ones(2, bool))
    logits = np.array([[50.0, 1.0, -1.0], [-50.0, -4.0, 2.0]], np.float32)
    select = _selection(detections=4, scores_of="sigmoid")
    found = select(proposals, (logits,), np.zeros((2, 1, 4)), np.array([100, 100]))
    scores = 1 / (1 + np.exp([-2.0, -1.0, 1.0]))  # that of logit -4 is below the threshold
    np.testing.assert_allclose(found.scores, [*scores, 0], atol=1e-6)
    assert found.labels.tolist() == [2, 1, 2, 0]
    cascade = select(proposals, (logits, logits[::-1]), np.zeros((2, 1, 4)), np.array([100, 100]))
    np.testing.assert_allclose(cascade.scores[0], (scores[0] + scores[2]) / 2, atol=1e-6)


def test_the_scores_of_a_cascade_of_mean_logits():
    proposals = Proposals(boxes=np.array([A, B], np.float32), scores=np.zeros(2), valid=np.ones(2, bool))
    heads = np.log([[[0.2, 0.8], [0.5, 0.5]], [[0.8, 0.2], [0.1, 0.9]]])
    select = _selection(detections=2, cascade_score="logit")
    found = select(proposals, tuple(heads), np.zeros((2, 1, 4)), np.array([100, 100]))
    # The odds of the object against the background are geometric means: of 1 and 9, and of 4 and 1/4.
    np.testing.assert_allclose(found.scores, [3 / 4, 1 / 2], atol=1e-6)


def test_invalid_proposals_and_boxes_outside_the_image_give_no_detections():
    found = _select([A, [120, 0, 140, 20]], [[0.1, 0.9], [0.1, 0.9]], valid=[False, True])
    assert not found.valid.any()
    assert found.scores.tolist() == [0, 0, 0, 0]


def test_a_box_emptied_by_clipping_takes_up_a_detection_unless_it_is_too_small():
    outside, probabilities = [120, 0, 140, 20], [[0.1, 0.9], [0.4, 0.6], [0.5, 0.5]]
    boxes = [outside, A, B]
    assert _select(boxes, probabilities, detections=2).valid.tolist() == [False, True]
    found = _select(boxes, probabilities, detections=2, box_smallest_side=0.01)
    np.testing.assert_allclose(found.boxes, [A, B], atol=1e-5)
    assert found.valid.all()


def test_no_more_than_the_maximum_of_detections():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(5)]
    found = _select(boxes, [[0.5 - 0.05 * i, 0.5 + 0.05 * i] for i in range(5)], detections=2)
    np.testing.assert_allclose(found.scores, [0.7, 0.65], atol=1e-6)


def test_class_agnostic_deltas_move_the_boxes_of_every_category():
    """Every category's box is its proposal, moved by the same deltas."""
    proposals = Proposals(
        boxes=np.array([A, B, B, B, B], np.float32),
        scores=np.zeros(5, np.float32),
        valid=np.array([True, True, False, False, False]),
    )
    logits = np.log(np.array([[0.1, 0.5, 0.4], [0.2, 0.1, 0.7]] + [[1 / 3] * 3] * 3))
    deltas = np.zeros((5, 1, 4))
    deltas[0, 0, 0] = 1.0  # a tenth of the width to the right
    image_size = np.array([100, 100])
    found = jax.device_get(_selection(detections=4)(proposals, (logits,), deltas, image_size))
    np.testing.assert_allclose(found.scores, [0.7, 0.5, 0.4, 0.1], atol=1e-6)
    assert found.labels.tolist() == [2, 1, 2, 1]
    np.testing.assert_allclose(found.boxes, [B, NEAR_A, NEAR_A, B], atol=1e-4)


@pytest.fixture(scope="module")
def predict_tiny(tiny_blueprint, tiny_weights, tiny_config):
    """The tiny model's jitted predict; ``.traces`` counts how often it was traced."""

    def traced(images, sizes):
        run.traces += 1
        return predict(tiny_blueprint.build(tiny_weights), images, sizes, tiny_config)

    jitted, mesh = jax.jit(traced), make_mesh(jax.devices()[:1])

    def run(images, sizes):
        with jax.set_mesh(mesh):
            return jax.device_get(jitted(images, sizes))

    run.traces = 0
    return run


def test_shapes_and_one_compilation(predict_tiny, tiny_batch):
    predict_tiny(tiny_batch.images[:2], tiny_batch.image_sizes[:2])
    found = predict_tiny(tiny_batch.images[2:4], np.array([[30, 64], [64, 20]], np.int32))
    assert found.boxes.shape == (2, 8, 4)
    assert found.masks.shape == (2, 8, 28, 28)
    assert found.keypoints.shape == (2, 8, 9, 3)
    assert bool(((found.masks >= 0) & (found.masks <= 1)).all())
    assert predict_tiny.traces == 1


def test_boxes_stay_inside_each_image(predict_tiny, tiny_batch):
    found = predict_tiny(tiny_batch.images[:2], np.array([[30, 64], [64, 20]], np.int32))
    assert found.valid.any()
    assert float(found.boxes[0, :, 3].max()) <= 30
    assert float(found.boxes[1, :, 2].max()) <= 20


def test_detections_do_not_depend_on_the_rest_of_the_batch(predict_tiny, tiny_batch):
    images, sizes = tiny_batch.images, tiny_batch.image_sizes
    one = predict_tiny(images[[0, 1]], sizes[:2])
    other = predict_tiny(images[[5, 0]], sizes[:2])
    assert one.valid[0].tolist() == other.valid[1].tolist()
    for name in ("boxes", "scores", "masks"):
        np.testing.assert_allclose(getattr(one, name)[0], getattr(other, name)[1], atol=1e-4)


@pytest.mark.slow
def test_a_model_without_an_rpn_finds_the_same_in_given_proposals(
    predict_tiny, tiny_batch, tiny_blueprint, tiny_weights, tiny_config
):
    model = dataclasses.replace(tiny_config.model, rpn=False)
    config = dataclasses.replace(tiny_config, model=model)
    without_rpn = make_blueprint(model, num_classes=4, num_keypoints=9)

    @jax.jit
    def in_two_models(images, sizes):
        proposals = predict_proposals(tiny_blueprint.build(tiny_weights), images, sizes, tiny_config)
        return predict(without_rpn.build(tiny_weights), images, sizes, config, proposals)

    images, sizes = tiny_batch.images[:2], np.array([[64, 64], [48, 56]], np.int32)
    with jax.set_mesh(make_mesh(jax.devices()[:1])):
        found = jax.device_get(in_two_models(images, sizes))
    wanted = predict_tiny(images, sizes)
    assert wanted.valid.any()
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), found, wanted)


def test_what_a_model_lacks(tiny_batch, tiny_weights, tiny_config):
    for changes, message in (
        ({"rpn": False}, "this model has no RPN: model.rpn is False"),
        ({"box": False, "mask": False, "keypoint": False}, "this model has no box head: model.box is False"),
    ):
        config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, **changes))
        blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(
                lambda images, sizes, blueprint=blueprint, config=config: predict(
                    blueprint.build(tiny_weights), images, sizes, config
                ),
                tiny_batch.images[:2],
                tiny_batch.image_sizes[:2],
            )
