import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.augment import (
    crop_sizes,
    example_generator,
    jitter_colours,
    random_crop,
    random_part,
    random_transform,
    sizes_before_crop,
)


def draw(seed, example, original=(480, 640), canvas=(800, 1344), **changes):
    config = DataConfig(train_short_sides=(640, 800), **changes)
    return random_transform(example_generator(seed, example), original, canvas, config)


def test_transform_is_a_function_of_seed_and_example():
    assert [draw(1, example) for example in range(20)] == [draw(1, example) for example in range(20)]
    assert [draw(1, example) for example in range(20)] != [draw(2, example) for example in range(20)]


def test_short_sides_and_flips_are_uniform_and_independent():
    draws = [draw(0, example) for example in range(400)]
    for side in (640, 800):
        for flip in (False, True):
            assert 70 < sum(one.resized[0] == side and one.flip == flip for one in draws) < 130
    assert not any(one.is_cropped for one in draws)


def test_disabling_flips_leaves_the_short_sides_unchanged():
    for example in range(20):
        plain = draw(0, example, flip=False)
        assert not plain.flip and plain.resized == draw(0, example).resized


def jittered(example, **changes):
    settings = {"original": (480, 640), "canvas": (1024, 1024), "scale_jitter": (0.1, 2.0)}
    return draw(0, example, **(settings | changes))


def test_large_scale_jitter():
    draws = [jittered(example) for example in range(400)]
    factors = np.array([transform.resized[1] / 1024 for transform in draws])  # 640 wide: the width decides
    assert 0.1 <= factors.min() < 0.13 and 1.97 < factors.max() <= 2
    assert abs(factors.mean() - 1.05) < 0.08
    for transform in draws:
        assert transform.size == (min(transform.resized[0], 1024), min(transform.resized[1], 1024))
        assert 0 <= transform.top <= transform.resized[0] - transform.size[0]
        assert 0 <= transform.left <= transform.resized[1] - transform.size[1]
    cropped = [transform for transform in draws if transform.resized[1] > 1400]
    lefts = np.array([transform.left / (transform.resized[1] - 1024) for transform in cropped])
    assert lefts.min() < 0.1 and lefts.max() > 0.9


def test_every_place_of_a_cut_is_drawn():
    settings = {"original": (10, 10), "canvas": (10, 10), "scale_jitter": (1.1, 1.1)}
    views = [jittered(example, **settings) for example in range(40)]
    assert {view.resized for view in views} == {(11, 11)}
    assert {(view.top, view.left) for view in views} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_large_scale_jitter_by_hand():
    """A factor of 1 fits the image to the canvas; Detectron2 rounds the sides, torchvision floors them."""
    assert jittered(0, original=(333, 500), scale_jitter=(1.0, 1.0)).resized == (682, 1024)
    assert jittered(0, original=(335, 500), scale_jitter=(1.0, 1.0)).resized == (686, 1024)
    assert jittered(0, original=(335, 500), scale_jitter=(1.0, 1.0), resize="torchvision").resized == (
        686,
        1024,
    )
    assert jittered(0, original=(331, 500), scale_jitter=(1.0, 1.0)).resized == (678, 1024)
    assert jittered(0, original=(331, 500), scale_jitter=(1.0, 1.0), resize="torchvision").resized == (
        677,
        1024,
    )
    assert jittered(0, original=(1, 500), scale_jitter=(0.1, 0.1)).resized == (1, 102)


def test_colours_change_and_shapes_do_not():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    kept = pixels.copy()
    found = [jitter_colours(pixels, example_generator(0, example)) for example in range(40)]
    np.testing.assert_array_equal(pixels, kept)
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in found)
    same = sum(bool((one == pixels).all()) for one in found)
    assert 0 < same < 10  # one in sixteen
    again = jitter_colours(pixels, example_generator(0, 7))
    np.testing.assert_array_equal(again, found[7])


def test_gray_stays_gray():
    gray = np.full((4, 4, 3), 100, np.uint8)
    for example in range(20):
        found = jitter_colours(gray, example_generator(0, example))
        assert (found == found[..., :1]).all() and found.min() >= 50 and found.max() <= 150


@pytest.mark.parametrize("changes", [{}, {"scale_jitter": (0.1, 2.0)}])
def test_images_of_any_shape_fit(changes):
    for original in ((1, 1), (1, 10000), (10000, 50), (7, 3)):
        for example in range(5):
            transform = draw(0, example, original=original, canvas=(800, 1344), **changes)
            assert 1 <= transform.size[0] <= 800 and 1 <= transform.size[1] <= 1344


@pytest.mark.parametrize("jitter", [(), (0.1, 2.0)])
def test_vertical_flips_and_turns_are_uniform_and_independent(jitter):
    settings = {"flip_vertical": True, "quarter_turns": True, "scale_jitter": jitter}
    draws = [draw(0, example, **settings) for example in range(800)]
    kinds = [(one.flip, one.flip_vertical, one.turns) for one in draws]
    assert {turns for _, _, turns in kinds} == {0, 2}
    for kind in set(kinds):
        assert 65 < kinds.count(kind) < 135
    plain = [draw(0, example, scale_jitter=jitter) for example in range(20)]
    for one, other in zip(draws, plain, strict=False):
        assert one == dataclasses.replace(other, flip_vertical=one.flip_vertical, turns=one.turns)


def test_a_turned_image_fits_its_canvas_as_the_turned_shape_does():
    transform = random_transform(
        example_generator(0, 0), (480, 640), (1088, 800), DataConfig(quarter_turns=True), turned=True
    )
    assert transform.turns in (1, 3) and transform.original == (480, 640)
    assert transform.resized[0] / transform.resized[1] == pytest.approx(640 / 480, rel=0.01)
    assert transform.resized[1] >= 640  # the short side


SIZES = json.loads((Path(__file__).parents[1] / "fixtures/detectron2_crop.json").read_text())["sizes"]


@pytest.mark.parametrize("case", SIZES)
def test_parts_have_the_sizes_that_detectron2_draws(case):
    config = DataConfig(crop=case["type"], crop_size=tuple(case["crop_size"]))
    size = tuple(case["size"])
    ends = crop_sizes(size, config)
    np.testing.assert_allclose(ends, case["sizes"], atol=1)  # it drew 3000 times
    generator = np.random.default_rng(0)
    drawn = np.array([random_crop(generator, size, config) for _ in range(1000)])
    top, left, height, width = drawn.T
    for side, start, part, (low, high) in zip(size, (top, left), (height, width), ends, strict=True):
        assert part.min() >= low and part.max() <= high
        assert part.min() - low <= (high - low) / 50 and high - part.max() <= (high - low) / 50
        assert 0 <= start.min() <= side / 50 and side * 0.98 <= (start + part).max() <= side


def test_a_share_of_the_images_is_resized_and_cut():
    config = DataConfig(
        crop="absolute_range", crop_size=(384.0, 600.0), crop_share=0.25, crop_short_sides=(400, 500, 600)
    )
    assert sizes_before_crop((480, 640), config) == [(400, 533), (500, 667), (600, 800)]
    generator = np.random.default_rng(0)
    drawn = [random_part(generator, (480, 640), config) for _ in range(1000)]
    cut = [part for part in drawn if part is not None]
    assert len(cut) == pytest.approx(250, abs=45)
    for (height, width), (top, left, rows, columns) in cut:
        assert 0 <= top <= height - rows and 0 <= left <= width - columns
        assert 384 <= rows <= min(height, 600) and 384 <= columns <= min(width, 600)
    counts = [sum(size[0] == side for size, _ in cut) for side in (400, 500, 600)]
    assert sum(counts) == len(cut) and min(counts) > 60


def test_without_a_share_and_a_first_resize_parts_are_drawn_as_ever():
    config = DataConfig(crop="relative_range", crop_size=(0.6, 0.6))
    draws = [draw(example_generator(0, 3), (480, 640), config) for draw in (random_part, random_crop)]
    assert draws[0] == ((480, 640), draws[1])


def test_parts_by_hand():
    for crop, crop_size, heights, widths in (
        ("relative", (0.25, 0.5), (25, 25), (100, 100)),
        ("relative_range", (0.25, 0.5), (25, 100), (100, 200)),
        ("absolute", (50.0, 300.0), (50, 50), (200, 200)),
        ("absolute_range", (50.0, 150.0), (50, 100), (50, 150)),
        ("", (0.5, 0.5), (100, 100), (200, 200)),
    ):
        config = DataConfig(crop=crop, crop_size=crop_size)
        assert crop_sizes((100, 200), config) == (heights, widths)
