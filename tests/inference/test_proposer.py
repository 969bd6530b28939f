"""Proposals of a data set's images, with a network that proposes what the test says."""

import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.predict import check_finds_objects
from mrcnn_jax.inference.proposer import Proposer, check_proposes, with_limits
from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections, Proposals

CATEGORIES = Categories((1,), ("thing",))
WIDE, TALL = (20, 40), (40, 20)


@pytest.fixture
def config(tiny_config):
    """Images become twice as large, on two canvases."""
    data = dataclasses.replace(
        tiny_config.data, test_short_side=40, long_side=80, canvases=((64, 96), (96, 64))
    )
    test = dataclasses.replace(tiny_config.test, rpn_post_nms=3)
    return dataclasses.replace(tiny_config, data=data, test=test)


def image(number, size):
    return np.full((*size, 3), number, np.uint8)


def propose(images, sizes):
    """The whole image, whose score is its colour; a box of half the image; and a row that is not valid."""
    count = len(images)
    boxes = np.zeros((count, 3, 4), np.float32)
    boxes[:, 0, 2:] = sizes[:, ::-1]
    boxes[:, 1, 2:] = sizes[:, ::-1] / 2
    boxes[:, 2] = 7
    scores = np.stack([images[:, 0, 0, 0], np.zeros(count), np.zeros(count)], axis=1).astype(np.float32)
    return Proposals(boxes, scores, np.tile([True, True, False], (count, 1)))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_in_pixels_of_the_original_image(config, batch_size):
    shapes = [WIDE, TALL, WIDE, WIDE, TALL, WIDE, WIDE]
    batches = []

    def count(images, sizes):
        batches.append(images.shape)
        return propose(images, sizes)

    proposer = Proposer(count, config, CATEGORIES, batch_size=batch_size)
    found = list(proposer.stream(lambda index: image(index + 1, shapes[index]), np.array(shapes)))
    assert sorted(index for index, _ in found) == list(range(7))
    for index, proposals in found:
        height, width = shapes[index]
        assert proposals.boxes.tolist() == [[0, 0, width, height], [0, 0, width / 2, height / 2]]
        assert proposals.objectness.tolist() == [index + 1, 0]
        assert proposals.boxes.dtype == proposals.objectness.dtype == np.float32
    assert {shape[0] for shape in batches} == {batch_size}
    assert len(batches) == -(-5 // batch_size) + -(-2 // batch_size)


def test_batches_are_the_same_whatever_is_done_and_whoever_takes_them(config):
    shapes = [WIDE, TALL, WIDE, WIDE, TALL, WIDE, WIDE]  # batches 0 2, 3 5, 6; 1 4
    seen = []

    def note(images, sizes):
        seen.append(images[:, 0, 0, 0].tolist())
        return propose(images, sizes)

    def stream(**options):
        seen.clear()
        found = proposer.stream(lambda index: image(index, shapes[index]), np.array(shapes), **options)
        return [index for index, _ in found]

    proposer = Proposer(note, config, CATEGORIES, batch_size=2)
    assert stream(done={0, 2, 3}) == [5, 6, 1, 4]
    assert seen == [[3, 5], [6, 0], [1, 4]]  # the second is filled up
    assert stream(share=(0, 2)) == [0, 2, 6] and stream(share=(1, 2)) == [3, 5, 1, 4]
    assert stream(share=(1, 2), done={3, 4, 5}) == [1] and seen == [[1, 4]]


def test_an_error_names_the_image(config):
    def read(index):
        if index == 3:
            raise ValueError("3.png: cannot be read")
        return image(1, WIDE)

    proposer = Proposer(propose, config, CATEGORIES, batch_size=2)
    with pytest.raises(ValueError, match=r"3\.png: cannot be read"):
        list(proposer.stream(read, np.array([WIDE] * 6)))


def test_a_detector_is_given_proposals_in_pixels_of_the_resized_image(config):
    """Batches are by canvas and filled up; every image has its own proposals, the best of them."""
    seen = {}

    def predict(images, sizes, given):
        for row, colour in enumerate(images[:, 0, 0, 0].tolist()):
            seen[colour] = given.boxes[row].tolist(), given.scores[row].tolist(), given.valid[row].tolist()
        count = len(images)
        empty = np.zeros((count, 1))
        return Detections(np.zeros((count, 1, 4)), empty, empty.astype(np.int32), empty.astype(bool))

    config = dataclasses.replace(config, model=dataclasses.replace(config.model, rpn=False, mask=False))
    detector = Detector(predict, config, CATEGORIES, batch_size=2)
    sizes = [WIDE, TALL, WIDE, WIDE]

    def proposals(index):
        height, width = sizes[index]
        boxes = np.array([[index, 0, width, height], [5, 5, 5, 9], [0, 0, 1, 2], [1, 1, 2, 2], [0, 0, 9, 9]])
        return ImageProposals(boxes.astype(np.float32), np.array([4, 3, 2, 1, 0], np.float32))

    results = list(detector.stream([image(i + 1, size) for i, size in enumerate(sizes)], proposals=proposals))
    assert len(results) == 4
    for index, (height, width) in enumerate(sizes):
        boxes, scores, valid = seen[index + 1]
        assert boxes == [[2 * index, 0, 2 * width, 2 * height], [0, 0, 2, 4], [2, 2, 4, 4]]
        assert scores == [4, 2, 1] and valid == [True] * 3


def test_a_model_without_an_rpn_needs_proposals(config):
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, rpn=False))
    with pytest.raises(ValueError, match=r"has no RPN \(model\.rpn is False\) and needs proposals"):
        Detector(propose, config, CATEGORIES)(image(1, WIDE))


def test_what_models_can_do():
    check_finds_objects(ModelConfig())
    check_proposes(ModelConfig())
    check_proposes(ModelConfig(box=False, mask=False))
    with pytest.raises(ValueError, match=r"network alone \(model\.box is False\) and finds no objects"):
        check_finds_objects(ModelConfig(box=False, mask=False))
    with pytest.raises(ValueError, match="the model has no RPN"):
        check_proposes(ModelConfig(rpn=False))


def test_training_images_get_as_many_as_training_takes(tiny_config):
    train = dataclasses.replace(tiny_config.train, rpn_pre_nms=12_000, rpn_post_nms=2000, rpn_nms_iou=0.6)
    test = dataclasses.replace(tiny_config.test, rpn_pre_nms=6000, rpn_post_nms=300)
    config = dataclasses.replace(tiny_config, train=train, test=test)
    assert with_limits(config, "val") == config
    expected = dataclasses.replace(test, rpn_pre_nms=12_000, rpn_post_nms=2000, rpn_nms_iou=0.6)
    assert with_limits(config, "train") == dataclasses.replace(config, test=expected)
