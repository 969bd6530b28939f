"""The detections that a report keeps beside it, and takes again."""

import dataclasses
import json

import pytest

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.report import kept
from tests.report.hand_made import make_run
from tests.run_command import run_here


def test_detections_are_kept(tmp_path, monkeypatch):
    config = make_run(tmp_path)
    source = open_validation_source(config)
    calls = []

    def evaluate(detector, source, *, detections_file, progress):
        calls.append(detector)
        detections_file.write_text("[]")

    monkeypatch.setattr(kept, "load", lambda *_, step, **__: step)
    monkeypatch.setattr(kept, "evaluate", evaluate)
    monkeypatch.setattr(kept, "time_of_weights", lambda _, step: f"time {step}")

    def run(step=7, **changes):
        changed = dataclasses.replace(config, test=dataclasses.replace(config.test, **changes))
        output = tmp_path / "out.html"
        return kept.kept_detections(
            tmp_path / "run", changed, source, output, step=step, batch_size=1, progress=False
        )

    assert run() == run() == tmp_path / "out.detections.json" and calls == [7]
    run(batch_size=3)  # makes no difference to what is found
    assert calls == [7]
    run(score_threshold=0.3)
    run(step=8, score_threshold=0.3)
    assert calls == [7, 7, 8]
    (tmp_path / "out.settings.json").unlink()
    with pytest.raises(ValueError, match=r"out\.detections\.json: is in the place of the detections to be"):
        run()
    assert (tmp_path / "out.detections.json").exists()


def test_an_interrupted_report_blocks_no_later_one(tmp_path, monkeypatch):
    """Wherever it ends: the old pair of files is there, or the new one, or no detections."""
    config = make_run(tmp_path)
    source = open_validation_source(config)
    found, settings = tmp_path / "out.detections.json", tmp_path / "out.settings.json"
    ends_in = ""

    def evaluate(step, source, *, detections_file, progress):
        detections_file.write_text(f"[{step}]")
        if ends_in == "evaluate":
            raise KeyboardInterrupt

    def write_json(path, content):
        if ends_in == "write_json":
            raise KeyboardInterrupt
        path.write_text(json.dumps(content))

    monkeypatch.setattr(kept, "load", lambda *_, step, **__: step)
    monkeypatch.setattr(kept, "evaluate", evaluate)
    monkeypatch.setattr(kept, "write_json", write_json)
    monkeypatch.setattr(kept, "time_of_weights", lambda _, step: f"time {step}")

    def run(step):
        kept.kept_detections(
            tmp_path / "run", config, source, tmp_path / "out.html", step=step, batch_size=1, progress=False
        )

    def interrupt(step, where):
        nonlocal ends_in
        ends_in = where
        with pytest.raises(KeyboardInterrupt):
            run(step)
        ends_in = ""

    interrupt(7, "evaluate")
    assert not found.exists()
    run(7)
    interrupt(8, "evaluate")
    assert (found.read_text(), json.loads(settings.read_text())["step"]) == ("[7]", 7)
    interrupt(8, "write_json")
    assert not found.exists()
    run(8)
    assert (found.read_text(), json.loads(settings.read_text())["step"]) == ("[8]", 8)
    assert not list(tmp_path.glob(".*"))


def test_what_is_compared_with_is_not_replaced(tmp_path):
    make_run(tmp_path)
    (tmp_path / "run" / "report.detections.json").write_text("[]")
    (tmp_path / "run" / "report.settings.json").write_text("{}")
    options = "--workdir=run", "--compare=run/../run/report.detections.json"
    done = run_here("report", *options, directory=tmp_path)
    assert done.returncode == 1
    assert "report.detections.json: is where this report's own detections go; choose another" in done.stderr
    assert (tmp_path / "run" / "report.detections.json").read_text() == "[]"
    done = run_here("report", *options, "--detections=found.json", directory=tmp_path)
    assert done.returncode == 0, done.stderr  # nothing is kept
