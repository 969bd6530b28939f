import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

import mrcnn_jax
from mrcnn_jax.checkpoint import Checkpoints, load_weights
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.training import loop


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    """Four steps on ten small pictures, evaluated after the last."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=10, val=3, image_size=64, seed=0)
    return dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, root=str(root)),
        train=dataclasses.replace(tiny_config.train, eval_every=4),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A run that was never interrupted. Its compiled step is cached for the runs of the other tests."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    path = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(config, path)
    yield path
    jax.config.update("jax_compilation_cache_dir", None)


def _interrupted_at(step, monkeypatch, error):
    """Makes ``error`` happen in place of the given call of the compiled step."""
    compile_step = loop.compile_step

    def compile_interrupted(*arguments):
        take_step = compile_step(*arguments)

        def run(state, batch):
            if int(state.step) == step - 1:
                raise error
            return take_step(state, batch)

        return run

    monkeypatch.setattr(loop, "compile_step", compile_interrupted)


def test_an_interrupted_run_ends_bit_equal(config, workdir, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _interrupted_at(4, patch, KeyboardInterrupt())
        loop.train(config, tmp_path)
    assert load_weights(tmp_path)[0] == 2
    loop.train(config, tmp_path)
    assert "continuing from step 2" in capsys.readouterr().out

    (step, wanted), (_, found) = load_weights(workdir), load_weights(tmp_path)
    assert step == 4
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_finished_run_is_left_alone(config, workdir, capsys):
    loop.train(config, workdir)
    assert "already trained for 4 steps" in capsys.readouterr().out


def test_step_lines_say_losses_rate_and_time_left(config, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _interrupted_at(3, patch, KeyboardInterrupt())
        loop.train(config, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["2/4"]
    for word in ("loss ", "rpn_objectness ", "mask ", "keypoint ", "images/s", "waiting for data", " left"):
        assert word in lines[0]


def test_another_config_does_not_continue_a_run(config, workdir):
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"train.learning_rate: 0.5 here, 0.02 in the run"):
        loop.train(other, workdir)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(config, tmp_path, monkeypatch):
    def compile_broken(*_):
        def run(state, batch):
            losses = {"mask": jnp.array(jnp.nan), "loss": jnp.array(jnp.nan), "learning_rate": jnp.array(0.1)}
            return state.replace(step=state.step + 1), losses

        return run

    monkeypatch.setattr(loop, "compile_step", compile_broken)
    with pytest.raises(FloatingPointError, match=r"step 1: loss is nan, mask is nan"):
        loop.train(config, tmp_path)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() is None


def test_a_failed_evaluation_costs_no_training(config, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("photo.jpg: cannot be read")

    monkeypatch.setattr(loop.Monitor, "evaluate", fail)
    with pytest.raises(ValueError, match=r"photo.jpg: cannot be read"):
        loop.train(config, tmp_path)
    assert load_weights(tmp_path)[0] == 4


def test_tensorboard_has_losses_scores_and_pictures(workdir):
    (path,) = (workdir / "tensorboard").iterdir()
    events = [Event.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    values = [(event.step, value) for event in events for value in event.summary.value]
    scalars = {(value.tag, step) for step, value in values if value.HasField("simple_value")}
    assert {
        ("train/loss", 2),
        ("train/mask", 4),
        ("train/learning_rate", 4),
        ("validation/segm_AP", 4),
    } <= scalars
    pictures = [value for _, value in values if value.HasField("image")]
    assert len(pictures) == 3
    assert pictures[0].image.width == 640  # 64 pixels, enlarged to be legible


def test_the_run_predicts_by_itself(config, workdir):
    detector = mrcnn_jax.load(workdir)
    assert detector.categories.names == ("circle", "square", "triangle", "figure")
    photo = np.asarray(Image.new("RGB", (200, 100), "teal"))
    result = detector(photo)
    assert result.image_size == (100, 200)
    assert result.masks.shape == (len(result), 100, 200)
    assert (result.boxes[:, [1, 3]] <= 100).all()
