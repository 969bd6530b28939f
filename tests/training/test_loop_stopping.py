"""When training ends before its last step."""

import dataclasses
import signal

import jax.numpy as jnp
import pytest

from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.training import loop

pytestmark = pytest.mark.usefixtures("shared_programs")


def _with(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def test_it_stops_when_evaluations_no_longer_improve(config, tmp_path, monkeypatch, capsys, counted_steps):
    """The best step is 2, as step 4 is only as good."""
    means = {1: 10.0, 2: 20.0, 3: 15.0, 4: 20.0, 5: 19.0, 6: 30.0}
    monkeypatch.setattr(loop.Monitor, "evaluate", lambda _, step, weights: {"bbox": means[step]})
    monkeypatch.setattr(loop.Checkpoints, "save", lambda *_: None)
    assert loop.train(_with(config, steps=6, eval_every=1, stop_after=3), tmp_path)
    reason = "no evaluation of the last 3 was better than that of step 2 (bbox 20.0; train.stop_after is 3)"
    assert f"stopped after step 5: {reason}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_it_stops_so_when_interrupted_and_once_and_for_all(
    config, tmp_path, monkeypatch, capsys, counted_steps
):
    means = {1: 10.0, 2: 20.0, 3: 15.0, 4: 20.0, 5: 19.0, 6: 30.0}
    monkeypatch.setattr(
        loop.Monitor, "evaluate", lambda _, step, weights: {"bbox": means[step], "segm": 20.0}
    )
    monkeypatch.setattr(loop.hosts, "should_stop", lambda step: step == 4 and len(counted_steps) == 4)
    config = _with(config, steps=6, eval_every=1, checkpoint_every=100, stop_after=3)
    assert not loop.train(config, tmp_path)
    assert "stopped after step 4 by SIGTERM" in capsys.readouterr().out
    assert loop.train(config, tmp_path)
    reason = "no evaluation of the last 3 was better than that of step 2 (bbox 20.0, segm 20.0; "
    assert f"stopped after step 5: {reason}train.stop_after is 3)\n" in capsys.readouterr().out
    assert loop.train(config, tmp_path)
    assert f"stopped after step 5: {reason}" in capsys.readouterr().out
    assert len(counted_steps) == 5
    assert loop.train(_with(config, stop_after=0), tmp_path)
    assert "trained for 6 steps" in capsys.readouterr().out
    assert load_weights(tmp_path, "best")[0] == 6


def test_asked_to_stop_it_saves_and_says_so(config, tmp_path, monkeypatch, capsys, counted_steps):
    monkeypatch.setattr(loop.hosts, "should_stop", lambda step: step in (2, 4))
    config = _with(config, eval_every=0, checkpoint_every=100)
    assert not loop.train(config, tmp_path)
    assert load_weights(tmp_path)[0] == 2
    assert "stopped after step 2 by SIGTERM" in capsys.readouterr().out
    monkeypatch.setattr(loop.hosts.stopping, "_received", signal.SIGINT)
    assert not loop.train(config, tmp_path / "other")
    assert "stopped after step 2 by Ctrl-C" in capsys.readouterr().out
    assert loop.train(config, tmp_path)  # it was the last step
    assert "stopped" not in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "4"}


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(config, tmp_path, monkeypatch):
    def compile_broken(*_):
        def run(state, batch):
            losses = {"mask": jnp.array(jnp.nan), "loss": jnp.array(jnp.nan), "lr": jnp.array(0.1)}
            return state.replace(step=state.step + 1), losses

        return run

    monkeypatch.setattr(loop, "compile_step", compile_broken)
    with pytest.raises(FloatingPointError, match=r"step 1: loss is nan, mask is nan"):
        loop.train(config, tmp_path)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() is None
