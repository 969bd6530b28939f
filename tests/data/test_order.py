import numpy as np
import pytest

from mrcnn_jax.data.order import BatchOrder

CANVAS_OF_IMAGE = np.array([0] * 12 + [1] * 6 + [2] * 2)


def test_one_image_by_hand():
    canvas, images, numbers = BatchOrder(np.array([4]), batch_size=3, seed=0).batch(5)
    assert (canvas, images.tolist(), numbers.tolist()) == (4, [0, 0, 0], [15, 16, 17])


def test_a_batch_depends_only_on_seed_and_step():
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


def test_batches_share_a_canvas_and_example_numbers_never_repeat():
    order = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=0)
    numbers = []
    for step in range(60):
        canvas, images, step_numbers = order.batch(step)
        assert (CANVAS_OF_IMAGE[images] == canvas).all()
        numbers.extend(step_numbers.tolist())
    assert numbers == list(range(240))


def test_each_image_occurs_once_per_pass_and_equally_often_per_period():
    order = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=1)
    streams = {0: [], 1: [], 2: []}
    for step in range(20):  # as many steps as images
        canvas, images, _ = order.batch(step)
        streams[canvas].extend(images.tolist())
    for canvas, stream in streams.items():
        members = np.flatnonzero(canvas == CANVAS_OF_IMAGE)
        passes = np.array(stream).reshape(4, len(members))  # each image occurs batch_size times
        np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(members, (4, 1)))
        assert len({tuple(one) for one in passes.tolist()}) > 1  # reshuffled


@pytest.mark.parametrize(
    ("counts", "batch_size"), [((12, 6, 2), 4), ((5, 3), 7), ((9,), 4), ((31, 17, 11, 7, 3), 8)]
)
def test_after_any_step_all_images_were_seen_equally_often(counts, batch_size):
    canvas_of_image = np.repeat(np.arange(len(counts)), counts)
    order = BatchOrder(canvas_of_image, batch_size=batch_size, seed=2)
    visits = np.zeros(sum(counts), int)
    # How far a canvas may be ahead or behind, per image, plus one visit from an unfinished pass.
    tolerance = (len(counts) - 1) / 2 * batch_size / np.array(counts)[canvas_of_image] + 1
    for step in range(2 * sum(counts)):
        canvas, images, _ = order.batch(step)
        np.add.at(visits, images, 1)
        assert np.ptp(visits[canvas_of_image == canvas]) <= 1
        assert (abs(visits - (step + 1) * batch_size / sum(counts)) <= tolerance).all()
    assert (visits == 2 * batch_size).all()


@pytest.mark.parametrize("counts", [(12, 6, 2), (1, 1, 1), (997, 3), (50, 49, 1), (40, 30, 15, 10, 5), (7,)])
def test_canvases_are_spread_evenly(counts):
    order = BatchOrder(np.repeat(np.arange(len(counts)), counts), batch_size=1, seed=0)
    canvases = np.array([order.batch(step)[0] for step in range(2 * sum(counts))])
    for canvas, count in enumerate(counts):
        so_far = np.cumsum(canvases == canvas)
        expected = (np.arange(len(canvases)) + 1) * count / sum(counts)
        assert abs(so_far - expected).max() <= (len(counts) - 1) / 2 + 1e-9


def test_a_late_step_costs_no_more_than_the_first(monkeypatch):
    shuffles = []
    seed_sequence = np.random.SeedSequence

    def counted(seed, *, spawn_key):
        shuffles.append(spawn_key)
        return seed_sequence(seed, spawn_key=spawn_key)

    monkeypatch.setattr(np.random, "SeedSequence", counted)
    for step in (0, 1, 100_000, 10**12):
        shuffles.clear()
        canvas, images, numbers = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=0).batch(step)
        assert (CANVAS_OF_IMAGE[images] == canvas).all() and numbers[0] == 4 * step
        assert 1 <= len(shuffles) <= 2  # the batch's pass, and the next one if it continues there


def test_errors():
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        BatchOrder(CANVAS_OF_IMAGE, batch_size=0, seed=0)
    with pytest.raises(ValueError, match="no images"):
        BatchOrder(np.zeros(0, int), batch_size=1, seed=0)


class TestDataSets:
    """Three sets of 30, 10 and 5 images on two canvases; the last is on the second canvas alone."""

    canvas_of_image = np.array([0] * 20 + [1] * 10 + [0, 1] * 5 + [1] * 5)
    set_of_image = np.array([0] * 30 + [1] * 10 + [2] * 5)

    def order(self, shares, *, batch_size=8, seed=0):
        return BatchOrder(
            self.canvas_of_image,
            batch_size=batch_size,
            seed=seed,
            set_of_image=self.set_of_image,
            shares=shares,
        )

    def test_by_hand(self):
        """Two sets of one image, with a share of 3 in 4 and 1 in 4, in batches of four."""
        order = BatchOrder(
            np.array([0, 0]), batch_size=4, seed=0, set_of_image=np.array([0, 1]), shares=(3.0, 1.0)
        )
        for step in (0, 1, 7, 10**9):
            assert sorted(order.batch(step)[1].tolist()) == [0, 0, 0, 1]

    @pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.6, 0.3, 0.1), (1.0, 20.0, 5.0)])
    def test_shares_are_as_given_and_images_of_a_set_are_seen_equally_often(self, shares):
        order, visits = self.order(shares), np.zeros(45, int)
        steps = 4000
        for step in range(steps):
            canvas, images, _ = order.batch(step)
            assert (self.canvas_of_image[images] == canvas).all()
            np.add.at(visits, images, 1)
        found = np.bincount(self.set_of_image, visits) / (steps * 8)
        # Of two canvases, each may be half a batch ahead or behind.
        np.testing.assert_allclose(found, np.array(shares) / sum(shares), atol=1 / steps + 1e-5)
        for data_set in range(3):
            of_set = visits[self.set_of_image == data_set]
            assert np.ptp(of_set) <= 8 + 1 + of_set.mean() * 1e-3

    def test_every_batch_is_mixed(self):
        order = self.order((0.6, 0.4, 1e-9), batch_size=10)
        for step in range(200):
            canvas, images, _ = order.batch(step)
            counts = np.bincount(self.set_of_image[images], minlength=3)
            # On canvas 0 the sets' shares are 0.6 * 20 / 30 and 0.4 * 5 / 10; on canvas 1, half of both.
            of_canvas = np.array([[0.4, 0.2, 0], [0.2, 0.2, 0]])[canvas]
            expected = 10 * of_canvas / of_canvas.sum()
            assert (abs(counts - expected) <= 1).all()

    def test_a_batch_depends_only_on_seed_and_step(self):
        forwards = self.order((1.0, 2.0, 3.0), seed=5)
        batches = [forwards.batch(step)[1].tolist() for step in range(60)]
        other = self.order((1.0, 2.0, 3.0), seed=5)
        for step in (59, 3, 40, 0, 41):
            assert other.batch(step)[1].tolist() == batches[step]
        assert [self.order((1.0, 2.0, 3.0), seed=6).batch(step)[1].tolist() for step in range(60)] != batches

    def test_each_set_goes_through_its_images_in_passes_of_its_own(self):
        order, streams = self.order((1.0, 1.0, 1.0)), {}
        for step in range(300):
            canvas, images, _ = order.batch(step)
            for image in images.tolist():
                streams.setdefault((canvas, int(self.set_of_image[image])), []).append(image)
        assert len(streams) == 5
        for (canvas, data_set), stream in streams.items():
            members = np.flatnonzero((self.canvas_of_image == canvas) & (self.set_of_image == data_set))
            whole = np.array(stream[: len(stream) // len(members) * len(members)]).reshape(-1, len(members))
            np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(members, (len(whole), 1)))
            assert len({tuple(one) for one in whole.tolist()}) > 1 or len(members) == 1

    def test_without_shares_sets_make_no_difference(self):
        joined = self.order(())
        plain = BatchOrder(self.canvas_of_image, batch_size=8, seed=0)
        for step in (*range(100), 10**6):
            for found, wanted in zip(joined.batch(step), plain.batch(step), strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_batches_of_one_set_are_those_of_earlier_versions():
    """Runs that were begun with them go on with the same batches."""
    order = BatchOrder(CANVAS_OF_IMAGE, batch_size=4, seed=3)
    batches = {
        0: (0, [11, 7, 9, 5]),
        1: (1, [17, 12, 14, 13]),
        2: (0, [10, 1, 3, 8]),
        3: (0, [6, 0, 2, 4]),
        19: (0, [10, 8, 0, 11]),
        1000: (0, [10, 1, 6, 3]),
    }
    for step, (canvas, images) in batches.items():
        found = order.batch(step)
        assert (found[0], found[1].tolist()) == (canvas, images)
