"""Which runs an experiment does, and what it keeps; training and evaluation are counted, not done."""

import json
import shutil
from pathlib import Path

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import validate
from mrcnn_jax.json_files import write_json
from mrcnn_jax.paper import bed, experiment
from mrcnn_jax.paper.experiment import Experiment
from mrcnn_jax.paper.full_scale import backbone_name
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights.zoo_models import named_config

CATEGORIES = Categories(names=("figure",), ids=(1,))


@pytest.fixture
def done(monkeypatch):
    """What has been trained: (directory, config). A directory added to ``stop_at`` stops its training."""
    trained = []
    trained_at = {}

    def train(config, workdir, *, init=None):
        if Path(workdir).name in train.stop_at:
            return False
        assert init is None or init in trained_at, "rows begin from the RPN that was trained before"
        trained_at[workdir] = True
        write_run(workdir, config, CATEGORIES)
        trained.append((Path(workdir), config))
        return True

    def evaluate(workdir, *, progress):
        seed = int(workdir.name.removeprefix("seed"))
        better = 2.0 if "align" in workdir.parent.name else 0.0
        figure = {"figure": {"bbox": 1.0, "segm": 1.0}}
        return {"per_category": figure} | {
            kind: {"AP": 10.0 + seed + better, "AP75": 5.0 + seed + better}
            for kind in ("bbox", "segm", "keypoints")
        }

    train.stop_at = set()
    monkeypatch.setattr(experiment, "train", train)
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    monkeypatch.setattr(bed, "draw", lambda folder: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(Experiment, "_write_proposals", lambda self, config, rpn, path, split: path.touch())
    return trained, train.stop_at


def _names(trained):
    return ["/".join(path.parts[-2:]) for path, _ in trained]


def test_every_row_is_trained_once_for_every_seed(tmp_path, done, capsys):
    trained, _ = done
    table = TABLES["2d"]
    assert Experiment(table, tmp_path).run(range(2))
    assert _names(trained) == [
        "rpn/r18_c5",
        *(f"{row.config}/seed{seed}" for seed in range(2) for row in table.rows),
    ]
    for _, config in trained:
        validate(config)
    rows = [config for _, config in trained[1:]]
    assert [config.train.seed for config in rows] == [0, 0, 1, 1]
    assert all(config.data.train_proposals == "proposals_r18_c5_train.npz" for config in rows)
    assert [config.model.roi_pooling for config in rows] == ["pool", "align"] * 2
    assert "RoIAlign over RoIPool, mask AP75" in capsys.readouterr().out
    content = json.loads((tmp_path / "table2d.json").read_text())
    assert content["rows"][1]["seeds"]["1"] == {
        "mask AP": 13.0, "mask AP75": 8.0, "box AP": 13.0, "box AP75": 8.0,
    }  # fmt: skip
    assert (tmp_path / "table2d.png").is_file()
    assert Experiment(table, tmp_path).run(range(2))
    assert len(trained) == 5, "nothing is left to do"


def test_goes_on_after_it_was_stopped(tmp_path, done):
    trained, stop_at = done
    stop_at.add("seed1")
    assert not Experiment(TABLES["2d"], tmp_path).run(range(2))
    assert len(trained) == 3
    stop_at.clear()
    assert Experiment(TABLES["2d"], tmp_path).run(range(2))
    assert _names(trained)[3:] == ["table2d_roi_pool/seed1", "table2d_roi_align/seed1"]


def test_tables_share_rows_with_the_same_settings(tmp_path, done):
    trained, _ = done
    assert Experiment(TABLES["2b"], tmp_path).run(range(1))
    trained.clear()
    assert Experiment(TABLES["2c"], tmp_path).run(range(1))
    assert "table2c_roi_align/seed0" not in _names(trained), "it is the sigmoid of table 2b"
    assert len(trained) == len(TABLES["2c"].rows) - 1


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.number)
def test_small_rows_differ_as_the_rows_do(table, tmp_path):
    small = [bed.shrink(named_config(f"paper/{row.config}"), tmp_path, seed=0) for row in table.rows]
    for config in small:
        validate(config)
        validate(bed.rpn_alone(config))
    assert all(config not in small[:number] for number, config in enumerate(small))


def test_rows_with_the_same_backbone_have_the_same_rpn(tmp_path):
    rpns: dict[str, Config] = {}
    for table in TABLES.values():
        for row in table.rows:
            config = bed.shrink(named_config(f"paper/{row.config}"), tmp_path, seed=1)
            assert bed.rpn_alone(config) == rpns.setdefault(backbone_name(config), bed.rpn_alone(config))


def test_runs_of_another_bed_are_not_taken_for_this_ones(tmp_path, done, monkeypatch):
    assert Experiment(TABLES["2d"], tmp_path).run(range(1))
    with monkeypatch.context() as patch:
        patch.setattr(bed, "_WIDTH", 8)
        with pytest.raises(ValueError, match=r"table2d_roi_pool.seed0 was .* \(model.backbone_width\)"):
            Experiment(TABLES["2d"], tmp_path).run(range(2))
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr(bed, "_SIDE", 160)
    with pytest.raises(ValueError, match=r"rpn.r18_c5 was trained with other settings \(data.canvases"):
        Experiment(TABLES["2d"], tmp_path).run(range(1))


def test_scores_of_a_damaged_file_name_it(tmp_path, done):
    assert Experiment(TABLES["2d"], tmp_path).run(range(1))
    write_json(tmp_path / "runs" / "table2d_roi_pool" / "seed0" / "scores.json", {})
    with pytest.raises(ValueError, match=r"scores\.json: has no mask AP"):
        Experiment(TABLES["2d"], tmp_path).run(range(1))
