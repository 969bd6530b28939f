import dataclasses

import jax

from mrcnn_jax.compile_report.cache import _programs


def test_programs_of_test_time_augmentation(tiny_config):
    """Two for each canvas of each scale."""
    test = dataclasses.replace(tiny_config.test, scales=(32, 64), flip=True)
    config = dataclasses.replace(tiny_config, test=test)
    names = list(_programs(config, "predict", categories=4))
    kinds = ("inference of boxes", "inference of given boxes' masks and keypoints")
    assert names == [f"{kind} for canvas {side}x{side}" for kind in kinds for side in (32, 64)]
    config.model = dataclasses.replace(config.model, mask=False, keypoint=False)
    assert list(_programs(config, "predict", categories=4)) == names[:2]


def test_programs_without_it(tiny_config):
    names = ["inference for canvas 64x64"]
    assert list(_programs(tiny_config, "predict", categories=4)) == names
    config = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, scales=(32,)))
    assert list(_programs(config, "predict", categories=4)) == ["inference for canvas 32x32"]


def test_a_view_is_lowered_for_the_shapes_of_a_run(tiny_config):
    """Else the cache would not have the program that a run looks for."""
    config = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, flip=True))
    lowered = [lower() for lower in _programs(config, "predict", categories=4).values()]
    detect, describe = (program.in_avals[0] for program in lowered)
    assert [x.shape for x in detect[1:]] == [(1, 64, 64, 3), (1, 2)]
    merged = lowered[0].out_info
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), merged)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), describe[5]) == wanted
    assert describe[6].shape == (17,) and describe[3].shape == ()
