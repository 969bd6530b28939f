import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import to_dict
from mrcnn_jax.distributed import agreement, hosts


@pytest.fixture
def others(monkeypatch):
    """The values that the other processes send, filled in by the test."""
    values = []
    monkeypatch.setattr(hosts, "all_gather", lambda value: [value, *values])
    return values


def _changed(config, section, **values):
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def test_different_settings_are_named(tiny_config, others):
    elsewhere = _changed(tiny_config, "data", root="/mnt/coco")
    others += [to_dict(elsewhere), to_dict(_changed(elsewhere, "train", seed=7))]
    with pytest.raises(ValueError) as error:
        agreement.check_same_config(tiny_config)
    assert str(error.value) == (
        "the processes were started with different settings:\n  train.seed: 7 in process 2, 0 in process 0"
    )


def test_paths_may_differ(tiny_config, others):
    others.append(to_dict(_changed(tiny_config, "model", backbone_weights="/mnt/r50.npz")))
    agreement.check_same_config(tiny_config)


def test_different_arrays_are_named(monkeypatch):
    ids, sizes = np.arange(3), np.ones((3, 2), np.int32)
    digests = []
    monkeypatch.setattr(hosts, "all_gather", lambda value: digests.append(value) or [value])
    agreement.check_same_arrays("training images", ids, sizes)
    agreement.check_same_arrays("training images", ids, sizes + 1)
    monkeypatch.setattr(hosts, "all_gather", lambda value: [value, *digests, digests[1]])
    with pytest.raises(
        ValueError, match="the training images of process 2, 3 differ from those of process 0"
    ):
        agreement.check_same_arrays("training images", ids, sizes)


def test_the_workdir_must_be_shared(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(agreement.time, "sleep", waited.append)
    monkeypatch.setattr(agreement.time, "monotonic", lambda: float(sum(waited)))
    with pytest.raises(ValueError, match=f"^{tmp_path}: the run's directory must be shared by all"):
        agreement.check_shared_workdir(tmp_path)
    assert sum(waited) == 61

    def appear(seconds):
        waited.append(seconds)
        (tmp_path / "config.json").touch()

    monkeypatch.setattr(agreement.time, "sleep", appear)
    agreement.check_shared_workdir(tmp_path)
