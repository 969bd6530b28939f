import dataclasses

import jax
import pytest

from mrcnn_jax.compile_report.cache import _programs, fill_cache
from mrcnn_jax.compile_report.programs import Objects
from mrcnn_jax.data.shapes import make_shapes
from tests.run_command import run_apart

PROGRAMS = "jit_train_step", "jit_predict"  # what the names of their files in the cache begin with


def test_programs_of_test_time_augmentation(tiny_config):
    """Two for each canvas of each scale."""
    test = dataclasses.replace(tiny_config.test, scales=(32, 64), flip=True)
    config = dataclasses.replace(tiny_config, test=test)
    names = list(_programs(config, "predict", Objects(4)))
    kinds = ("inference of boxes", "inference of given boxes' masks and keypoints")
    assert names == [f"{kind} for canvas {side}x{side}" for kind in kinds for side in (32, 64)]
    config.model = dataclasses.replace(config.model, mask=False, keypoint=False)
    assert list(_programs(config, "predict", Objects(4))) == names[:2]


def test_programs_without_it(tiny_config):
    names = ["inference for canvas 64x64"]
    assert list(_programs(tiny_config, "predict", Objects(4))) == names
    config = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, scales=(32,)))
    assert list(_programs(config, "predict", Objects(4))) == ["inference for canvas 32x32"]


def test_a_view_is_lowered_for_the_shapes_of_a_run(tiny_config):
    """Else the cache would not have the program that a run looks for."""
    config = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, flip=True))
    lowered = [lower() for lower in _programs(config, "predict", Objects(4)).values()]
    detect, describe = (program.in_avals[0] for program in lowered)
    assert [x.shape for x in detect[1:]] == [(1, 64, 64, 3), (1, 2)]
    merged = lowered[0].out_info
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), merged)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), describe[5]) == wanted
    assert describe[6].shape == (17,) and describe[3].shape == ()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"epochs": 2.0, "schedule": "cosine"}, r"train\.epochs: with the cosine schedule the step depends"),
        ({"federated_classes": 3}, r"train\.federated_classes: the step depends on how many images have"),
    ],
)
def test_programs_that_depend_on_the_data_are_refused(tiny_config, train, message):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, **train))
    with pytest.raises(ValueError, match=message):
        next(fill_cache(config, "train", objects=Objects(4)))


@pytest.mark.slow  # compiles training twice
def test_training_finds_its_programs_there(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    make_shapes(tmp_path / "data" / "shapes", train=8, val=2, image_size=64, seed=0)
    model = "backbone_depth=18 backbone_width=8 fpn_channels=16 box_channels=16 mask_convs=1 mask_channels=8"
    settings = [f"model.{setting}" for setting in [*model.split(), "keypoint_convs=1", "keypoint_channels=8"]]
    settings += ["data.canvases=((64,64),)", "data.long_side=64", "data.test_short_side=64"]
    settings += ["data.train_short_sides=(64,)", "train.steps=2", "train.eval_every=2", "train.batch_size=2"]
    flags = ["--config=shapes", *(f"--config.{setting}" for setting in settings)]

    def run(command, *more):
        outcome = run_apart(command, *flags, *more, directory=tmp_path)
        assert outcome.returncode == 0, outcome.stderr
        return {path.name for path in cache.glob("*-cache") if path.name.startswith(PROGRAMS)}

    filled = run("compile_report", "--fill_cache", "--categories=4", "--keypoints=9")
    assert len(filled) == 2
    assert run("train", "--workdir=run") == filled
