import dataclasses

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.images import fitted_shape
from mrcnn_jax.inference.views import (
    Scale,
    canvases_of,
    check_flip_pairs,
    describe_views,
    plain_scale,
    scales_of,
    views_of,
)
from mrcnn_jax.runs.categories import Categories


def with_test(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, test=dataclasses.replace(config.test, **changes))


def test_scales_by_hand(config: Config) -> None:
    """At 48 in place of 32 pixels, sides are 3 / 2 of 64, and canvases 3 / 2 of 32 x 64."""
    found = scales_of(with_test(config, scales=(48, 32)))
    assert found == (Scale(48, 96, ((64, 96), (96, 64))), Scale(32, 64, config.data.canvases))
    found = scales_of(with_test(config, scales=(48,), scales_long_side=200))
    assert found == (Scale(48, 200, ((64, 96), (96, 64), (64, 224), (224, 64))),)


def test_without_scales_there_is_the_plain_one(config: Config) -> None:
    plain = (plain_scale(config),)
    assert scales_of(config) == scales_of(with_test(config, scales=(32,))) == plain
    assert views_of(config) == views_of(with_test(config, scales=(48,))) == ((0, False),)


def test_the_mirror_image_follows_the_image_at_every_scale(config: Config) -> None:
    found = views_of(with_test(config, scales=(48, 32), flip=True))
    assert found == ((0, False), (0, True), (1, False), (1, True))


def test_what_is_computed_is_told(config: Config) -> None:
    assert describe_views(config) == describe_views(with_test(config, scales=(48,))) == ""
    # 64 x 32 and 32 x 64 at 32 pixels; at 16 pixels both are 32 x 32 after rounding, and so at 8.
    several = with_test(config, scales=(32, 16, 8), flip=True)
    assert canvases_of(several) == (*config.data.canvases, (32, 32))
    assert describe_views(several) == (
        "test-time augmentation: 6 views of every image; programs to compile: 2 per canvas, up to 6 for 3 "
        "canvases"
    )
    several.model = dataclasses.replace(several.model, mask=False, keypoint=False)
    assert describe_views(several).endswith("programs to compile: 1 per canvas, up to 3 for 3 canvases")


def test_canvases_for_devices_that_share_an_image(config: Config) -> None:
    (scale,) = scales_of(with_test(config, scales=(48,), spatial_devices=4))
    assert scale.canvases == ((128, 96), (128, 64))
    config.model.padding_multiple = 64
    (scale,) = scales_of(with_test(config, scales=(48,)))
    assert scale.canvases == ((64, 128), (128, 64))


@pytest.mark.parametrize("long_side", [0, 4000])
def test_no_image_is_shrunk_to_fit_the_canvases(long_side: int) -> None:
    """Detectron2's scales for COCO: its own sizes, however elongated the image."""
    scales = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
    for scale in scales_of(with_test(Config(), scales=scales, scales_long_side=long_side)):
        for height, width in ((480, 640), (640, 427), (480, 801), (100, 640), (640, 50)):
            size, _ = fitted_shape(height, width, **scale._asdict())
            limit = (long_side or round(1333 * scale.short_side / 800)) / max(height, width)
            factor = min(scale.short_side / min(height, width), limit)
            assert size == pytest.approx((factor * height, factor * width), abs=1)


def test_keypoints_need_pairs_to_be_mirrored(config: Config, categories: Categories) -> None:
    no_pairs = dataclasses.replace(categories, flip_pairs=())
    flip = with_test(config, flip=True)
    check_flip_pairs(flip, categories)
    check_flip_pairs(config, no_pairs)
    with pytest.raises(ValueError, match=r"test.flip is True, .* \(head, left_foot, right_foot\)"):
        check_flip_pairs(flip, no_pairs)
    flip.model.keypoint = False
    check_flip_pairs(flip, no_pairs)
