"""What W&B and MLflow get of a run, and what happens when they fail."""

import json

import numpy as np
import pytest

from mrcnn_jax.json_files import write_json
from mrcnn_jax.training import writers
from mrcnn_jax.training.writers import check_services, open_service

FIELDS = {"train.steps": 20, "train.learning_rate": 0.01, "model.mask": True, "test.scales": (800,)}
CHOSEN = {"train.steps": 20, "test.scales": (800,)}
PICTURE = np.full((4, 6, 3), 200, np.uint8)


def write_run(name, workdir, *, steps, failed=False):
    """Writes settings, a loss and a picture at each step, as a run in ``workdir`` would."""
    writer = open_service(name, workdir)
    writer.write_settings(steps[0] - 1, FIELDS, CHOSEN, ["train/loss"])
    for step in steps:
        writer.write_scalars(step, {"train/loss": 1 / step, "validation/proposals_AR@100": 3.0})
        writer.write_picture(step, "validation/image_a b.jpg", PICTURE)
    writer.close(failed=failed)


class Broken:
    """A service that takes a run and then fails."""

    def __init__(self, workdir):
        pass

    def _fail(self, *_, **__):
        raise ConnectionError("the server is away")

    write_settings = write_scalars = write_picture = close = _fail


def test_a_service_that_fails_later_does_not_end_the_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(writers._SERVICES, "mlflow", Broken)
    write_run("mlflow", tmp_path, steps=[7])
    assert capsys.readouterr().out.splitlines() == [
        "mlflow: not written: the settings of step 6: the server is away",
        "mlflow: not written: the values of step 7: the server is away",
        "mlflow: not written: validation/image_a b.jpg of step 7: the server is away",
        "mlflow: not written: the end: the server is away",
    ]


def test_a_service_that_is_away_from_the_start_does(monkeypatch, tmp_path):
    monkeypatch.setitem(writers._SERVICES, "mlflow", lambda workdir: Broken(workdir).close())
    with pytest.raises(ConnectionError, match="away"):
        open_service("mlflow", tmp_path)


def test_unknown_and_missing_services_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"^log_to=comet: must be one of wandb, mlflow$"):
        check_services(["comet"])
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"log_to=mlflow needs the package mlflow: pip install mlflow \(the"):
        check_services(["mlflow"])
    check_services([])


def test_a_damaged_file_of_ids_is_named(tmp_path):
    write_json(tmp_path / "tracking.json", {"mlflow": 3})
    with pytest.raises(ValueError, match=r"tracking\.json: must be an object of texts"):
        writers._read_ids(tmp_path)


@pytest.mark.slow
def test_mlflow_gets_a_run_that_is_resumed(monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra [mlflow]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "detection")
    workdir = tmp_path / "run"
    workdir.mkdir()
    write_run("mlflow", workdir, steps=[1, 2], failed=True)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("detection").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("run", "FAILED")

    write_run("mlflow", workdir, steps=[2, 3])
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.steps": "20", "test.scales": "(800,)"}
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(loss.step, loss.value) for loss in losses] == [(1, 1.0), (2, 0.5), (2, 0.5), (3, 1 / 3)]
    assert run.data.metrics["validation/proposals_AR_100"] == 3.0
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "config")}
    assert artifacts == {"config/0.json", "config/1.json"}
    assert len(client.list_artifacts(run.info.run_id, "images")) >= 3


@pytest.mark.slow
def test_wandb_gets_a_run(monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "detection")
    workdir = tmp_path / "run"
    workdir.mkdir()
    write_run("wandb", workdir, steps=[1, 2])
    first = json.loads((workdir / "tracking.json").read_text())["wandb"]
    (folder,) = (workdir / "wandb").glob("offline-run-*")
    records = next(folder.glob("*.wandb")).read_bytes()  # protocol buffers, to be uploaded
    for part in (b"detection", b"train.learning_rate", b"train/loss", b"validation/proposals_AR@100"):
        assert part in records
    assert len(list((folder / "files" / "media").rglob("*.png"))) == 2
    write_run("wandb", workdir, steps=[3])
    assert json.loads((workdir / "tracking.json").read_text())["wandb"] == first
