"""Images of rare categories are repeated as in Detectron2, and batches hold exactly that."""

import dataclasses
import math

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.order import BatchOrder
from mrcnn_jax.data.passes import Passes, draw_offsets
from mrcnn_jax.data.pipeline import plan_batches
from mrcnn_jax.data.repeats import repeat_factors
from mrcnn_jax.data.selection import describe_selection, frequencies, repeats_of_images, trained_images
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.data.summary import format_summary, summarise

FIXTURE = "tests/fixtures/detectron2_lvis.npz"


def test_factors_by_hand():
    """Of 4 trained images, 3 have category 1, one has 2; image 4 has the only one of category 3, in vain."""
    pairs = np.array([[0, 1], [1, 1], [2, 1], [2, 2], [4, 3]])
    trained = np.array([True, True, True, True, False])
    found = repeat_factors(pairs, trained, num_categories=3, threshold=0.5)
    np.testing.assert_allclose(found, [1, 1, math.sqrt(0.5 / 0.25), 1, 1])
    found = repeat_factors(pairs, trained, num_categories=3, threshold=1.0)
    np.testing.assert_allclose(found, [math.sqrt(4 / 3), math.sqrt(4 / 3), 2, 1, 1])


def test_factors_equal_detectron2s():
    with np.load(FIXTURE) as stored:
        pairs, images = stored["image_labels"], int(stored["images"])
        for threshold in (0.01, 0.1, 1.0):
            found = repeat_factors(pairs, np.ones(images, bool), num_categories=20, threshold=threshold)
            np.testing.assert_allclose(found, stored[f"repeat_factors/{threshold}"], rtol=1e-6)
            assert (found > 1).any()


def test_passes_by_hand():
    """Image 7 twice in a pass, image 9 in every second one."""
    passes = Passes(
        np.array([7, 9]), seed=0, canvas=0, repeats=np.array([2.0, 1.5]), offsets=np.array([0.3, 0.5])
    )
    found = [passes.at(np.arange(begin, begin + count)) for begin, count in ((0, 4), (4, 3), (7, 4), (11, 3))]
    assert [np.sort(images).tolist() for images in found] == [
        [7, 7, 9, 9],
        [7, 7, 9],
        [7, 7, 9, 9],
        [7, 7, 9],
    ]
    assert passes.mean_length == 3.5
    np.testing.assert_array_equal(passes.at(np.arange(14)), np.concatenate(found))
    far = 7 * 10**9  # 2 * 10^9 passes
    assert np.sort(passes.at(np.arange(far, far + 4))).tolist() == [7, 7, 9, 9]


class TestOrder:
    rng = np.random.default_rng(0)
    canvas_of_image = rng.integers(0, 3, 60)
    repeats = np.maximum(1.0, rng.uniform(0, 6, 60))

    def order(self, **settings):
        return BatchOrder(self.canvas_of_image, batch_size=8, seed=1, repeats=self.repeats, **settings)

    def test_each_image_is_seen_as_often_as_its_factor_says(self):
        order, visits, rows = self.order(), np.zeros(60), 0
        for step in range(3000):
            canvas, images, _ = order.batch(step)
            assert (self.canvas_of_image[images] == canvas).all()
            np.add.at(visits, images, 1)
            rows += 8
            if step % 100 == 0 and step:
                passes = rows / self.repeats.sum()
                # A canvas may be a batch ahead or behind, and is amid a pass.
                in_canvas = np.bincount(self.canvas_of_image, self.repeats)[self.canvas_of_image]
                tolerance = self.repeats * (1 + 16 / in_canvas) + 1
                assert (abs(visits - passes * self.repeats) <= tolerance).all()

    def test_a_batch_depends_only_on_seed_and_step(self):
        """So hosts agree, and a run that is resumed goes on with the same images."""
        first, late = self.order(), self.order()
        batches = [first.batch(step) for step in range(200)]
        for step in (150, 199, 3, 77):
            assert late.batch(step)[0] == batches[step][0]
            np.testing.assert_array_equal(late.batch(step)[1], batches[step][1])

    def test_with_shares(self):
        """The second set has a third of the images seen, and in it images are repeated."""
        sets = np.arange(60) % 2
        order = self.order(set_of_image=sets, shares=(2.0, 1.0))
        visits = np.zeros(60)
        for step in range(4000):
            np.add.at(visits, order.batch(step)[1], 1)
        np.testing.assert_allclose(np.bincount(sets, visits) / visits.sum(), [2 / 3, 1 / 3], atol=1e-3)
        for number in range(2):
            chosen = sets == number
            expected = self.repeats[chosen] / self.repeats[chosen].sum()
            np.testing.assert_allclose(visits[chosen] / visits[chosen].sum(), expected, rtol=0.02)

    def test_offsets_are_a_function_of_seed_and_image(self):
        np.testing.assert_array_equal(draw_offsets(3, 10)[:5], draw_offsets(3, 5))
        assert (draw_offsets(3, 5) != draw_offsets(4, 5)).any()

    def test_no_repetition_is_the_order_without(self):
        plain = BatchOrder(self.canvas_of_image, batch_size=8, seed=1)
        ones = BatchOrder(self.canvas_of_image, batch_size=8, seed=1, repeats=np.ones(60))
        for canvas in range(3):  # the canvases take turns in another sequence
            streams = []
            for order in (plain, ones):
                batches = [order.batch(step) for step in range(200)]
                streams.append(np.concatenate([images for found, images, _ in batches if found == canvas]))
            length = min(map(len, streams))
            np.testing.assert_array_equal(streams[0][:length], streams[1][:length])


@pytest.fixture
def unbalanced(folder):
    """16 images with a dog, one of which also has the only car, and two without objects."""
    for number in range(16):
        image = folder.add_image()
        folder.add_object(image)
        if number == 3:
            folder.add_object(image, category_id=3, keypoints=[])
        if number == 4:
            folder.add_object(image, category_id=3, keypoints=[], iscrowd=1)
    folder.add_image()
    folder.add_image()
    return FolderSource(read_coco(**folder.write()), mask_grid=8)


def test_a_source(unbalanced):
    config = DataConfig(repeat_threshold=1.0)
    trained = trained_images(unbalanced, config, keypoints=False)
    factors = repeats_of_images(unbalanced, config, trained)
    np.testing.assert_allclose(factors, [1, 1, 1, 4, *[1] * 12])
    often = frequencies(unbalanced, config, trained)
    np.testing.assert_allclose(often, factors * 16 / 19)
    assert repeats_of_images(unbalanced, DataConfig(), trained) is None
    # With keep_empty a dog is in 16 of 18 images.
    everything = dataclasses.replace(config, keep_empty=True)
    factors = repeats_of_images(unbalanced, everything, np.ones(18, bool))
    np.testing.assert_allclose(factors[[0, 3, 17]], [math.sqrt(18 / 16), math.sqrt(18), 1])


def test_batches_of_a_source(unbalanced):
    config = DataConfig(repeat_threshold=1.0)
    order, kept, _ = plan_batches(unbalanced, config, batch_size=4, seed=0, keypoints=False)
    visits = np.bincount(np.concatenate([kept[order.batch(step)[1]] for step in range(19)]))
    assert visits[3] == 16 and (np.delete(visits, 3) == 4).all()


def test_it_is_said_at_the_start_and_by_show(unbalanced):
    config = DataConfig(repeat_threshold=1.0)
    (line, _) = describe_selection(unbalanced, config, keypoints=False)
    assert line == (
        "data.repeat_threshold is 1: for rare categories, 1 of 16 images are repeated, each 4.00 to 4.00 "
        "times in an epoch of 19 images"
    )
    (line, _) = describe_selection(unbalanced, DataConfig(repeat_threshold=0.01), keypoints=False)
    assert line == "data.repeat_threshold is 0.01: no category is that rare"
    summary = summarise(unbalanced, config, keypoints=False)
    np.testing.assert_allclose(summary.shares, [[1 / 16, 4 / 19], [1, 1]])
    lines = format_summary(summary).splitlines()
    assert lines[2].split()[-2:] == ["share", "seen"]
    assert lines[4].split()[-2:] == ["6.25%", "21.05%"]
    assert any(line.startswith("share, seen: of the training images") for line in lines)
    plain = format_summary(summarise(unbalanced, DataConfig(), keypoints=False))
    assert "seen" not in plain


def test_records_that_do_not_list_categories_are_an_error(unbalanced):
    unbalanced.image_labels = None
    config = DataConfig(repeat_threshold=0.1)
    with pytest.raises(
        ValueError, match=r"instances\.json: the categories of an image, which data\.repeat_t"
    ):
        plan_batches(unbalanced, config, batch_size=4, seed=0, keypoints=False)
