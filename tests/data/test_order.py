import numpy as np
import pytest

from mrcnn_jax.data.order import BatchOrder

CANVAS_OF_IMAGE = np.array([0] * 12 + [1] * 6 + [2] * 2)


def test_one_image_by_hand():
    canvas, images, numbers = BatchOrder(np.array([4]), batch_size=3, seed=0).batch(5)
    assert (canvas, images.tolist(), numbers.tolist()) == (4, [0, 0, 0], [15, 16, 17])


def test_a_batch_depends_on_seed_and_step_alone():
    forwards = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=3)
    batches = [forwards.batch(step) for step in range(50)]
    other = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=3)
    for step in (49, 0, 31, 30, 7):
        canvas, images, numbers = other.batch(step)
        assert canvas == batches[step][0]
        np.testing.assert_array_equal(images, batches[step][1])
        np.testing.assert_array_equal(numbers, batches[step][2])
    different = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=4)
    assert any((different.batch(step)[1] != batches[step][1]).any() for step in range(50))


def test_batches_are_of_one_canvas_and_example_numbers_never_repeat():
    order = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=0)
    numbers = []
    for step in range(60):
        canvas, images, step_numbers = order.batch(step)
        assert (CANVAS_OF_IMAGE[images] == canvas).all()
        numbers.extend(step_numbers.tolist())
    assert numbers == list(range(240))


def test_each_image_once_a_pass_and_equally_often_in_a_period():
    order = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=1)
    streams = {0: [], 1: [], 2: []}
    for step in range(20):  # as many steps as images
        canvas, images, _ = order.batch(step)
        streams[canvas].extend(images.tolist())
    for canvas, stream in streams.items():
        members = np.flatnonzero(canvas == CANVAS_OF_IMAGE)
        passes = np.array(stream).reshape(4, len(members))  # each image as often as a batch has images
        np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(members, (4, 1)))
        assert len({tuple(one) for one in passes.tolist()}) > 1  # shuffled anew


@pytest.mark.parametrize("counts", [(12, 6, 2), (1, 1, 1), (997, 3), (50, 49, 1)])
def test_canvases_are_spread_evenly(counts):
    order = BatchOrder(np.repeat(np.arange(len(counts)), counts), batch_size=1, seed=0)
    canvases = np.array([order.batch(step)[0] for step in range(2 * sum(counts))])
    for canvas, count in enumerate(counts):
        so_far = np.cumsum(canvases == canvas)
        due = (np.arange(len(canvases)) + 1) * count / sum(counts)
        assert abs(so_far - due).max() <= 2


def test_a_late_step_is_as_cheap_as_the_first():
    canvas, images, numbers = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=0).batch(10**12)
    assert (CANVAS_OF_IMAGE[images] == canvas).all() and numbers[0] == 4 * 10**12


def test_errors():
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        BatchOrder(CANVAS_OF_IMAGE, batch_size=0, seed=0)
    with pytest.raises(ValueError, match="no images"):
        BatchOrder(np.zeros(0, int), batch_size=1, seed=0)
