"""What a run's processes do together, and each by itself, with a single process that is told of others."""

import dataclasses

import pytest

from mrcnn_jax.training import loop, state

pytestmark = pytest.mark.usefixtures("shared_programs")


def one_step(config):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1, eval_every=0))


def test_what_processes_agree_on_before_the_first_step(config, tmp_path, monkeypatch, counted_steps):
    agreed = []
    monkeypatch.setattr(loop, "check_same_config", lambda config: agreed.append("config"))
    for module in (loop, state):
        monkeypatch.setattr(module, "check_same_arrays", lambda name, *_: agreed.append(name))
    monkeypatch.setattr(loop.Monitor, "check_same_validation_set", lambda _: agreed.append("validation set"))
    monkeypatch.setattr(loop, "check_shared_workdir", lambda _: agreed.append("workdir"))
    loop.train(one_step(config), tmp_path)
    assert agreed == ["config", "training images", "validation set", "workdir", "initial weights"]


def test_each_process_reads_its_share_of_a_batch(config, tmp_path, monkeypatch, counted_steps):
    def read(*_, process_index, process_count, **__):
        assert (process_index, process_count) == (1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "share_of_batch", lambda mesh: (1, 2))
    monkeypatch.setattr(loop, "training_batches", read)
    with pytest.raises(KeyboardInterrupt):
        loop.train(one_step(config), tmp_path)


def test_other_processes_write_and_print_nothing(config, tmp_path, monkeypatch, capsys, counted_steps):
    monkeypatch.setattr(loop.hosts, "is_main_process", lambda: False)
    monkeypatch.setattr(loop, "check_shared_workdir", lambda _: None)
    loop.train(one_step(config), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}  # orbax's, which all take part in
    assert capsys.readouterr().out == ""
