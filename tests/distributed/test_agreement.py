import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import to_dict
from mrcnn_jax.distributed import agreement, hosts


@pytest.fixture
def others(monkeypatch):
    """What the other processes answer, to be filled by the test."""
    answers = []
    monkeypatch.setattr(hosts, "gather", lambda value: [value, *answers])
    return answers


def _changed(config, section, **values):
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def test_settings_that_differ_are_named(tiny_config, others):
    elsewhere = _changed(tiny_config, "data", root="/mnt/coco")
    others += [to_dict(elsewhere), to_dict(_changed(elsewhere, "train", seed=7))]
    with pytest.raises(ValueError) as error:
        agreement.check_settings(tiny_config)
    assert str(error.value) == (
        "the processes were started with different settings:\n  train.seed: 7 in process 2, 0 in process 0"
    )


def test_paths_may_differ(tiny_config, others):
    others.append(to_dict(_changed(tiny_config, "model", backbone_weights="/mnt/r50.npz")))
    agreement.check_settings(tiny_config)


def test_arrays_that_differ_are_named(monkeypatch):
    ids, sizes = np.arange(3), np.ones((3, 2), np.int32)
    answers = []
    monkeypatch.setattr(hosts, "gather", lambda value: answers.append(value) or [value])
    agreement.check_alike("training images", ids, sizes)
    agreement.check_alike("training images", ids, sizes + 1)
    monkeypatch.setattr(hosts, "gather", lambda value: [value, *answers, answers[1]])
    with pytest.raises(ValueError, match="the training images of process 2, 3 are not those of process 0"):
        agreement.check_alike("training images", ids, sizes)


def test_the_directory_must_be_shared(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(agreement.time, "sleep", waited.append)
    monkeypatch.setattr(agreement.time, "monotonic", lambda: float(sum(waited)))
    with pytest.raises(ValueError, match=f"^{tmp_path}: the run's directory must be one folder for all"):
        agreement.check_seen(tmp_path)
    assert sum(waited) == 61

    def appear(seconds):
        waited.append(seconds)
        (tmp_path / "config.json").touch()

    monkeypatch.setattr(agreement.time, "sleep", appear)
    agreement.check_seen(tmp_path)
