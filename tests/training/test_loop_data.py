"""The data of a run, what is said of them at the start, and data of a program's own."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints
from mrcnn_jax.runs.description import read_run, write_run
from mrcnn_jax.training import loop
from mrcnn_jax.training.state import initial_weights


def _with(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_warning_if_frozen_stages_are_random(config, tiny_blueprint, monkeypatch, capsys, frozen):
    monkeypatch.setattr(type(tiny_blueprint), "draw", lambda *_: {})
    model = dataclasses.replace(config.model, backbone_frozen_stages=frozen)
    config = dataclasses.replace(config, model=model)
    initial_weights(make_blueprint(model, num_classes=4, num_keypoints=9), config)
    warning = "its frozen stages stay random (model.backbone_frozen_stages is 1)"
    assert (warning in capsys.readouterr().out) == bool(frozen)


def test_findings_in_the_data_are_printed_at_the_start(config, tmp_path, capsys, counted_steps):
    root = tmp_path / "data"
    shutil.copytree(config.data.root, root)
    removed = sorted((root / "train").iterdir())[0]
    removed.unlink()
    data = dataclasses.replace(config.data, root=str(root), skip_bad=True)
    loop.train(_with(dataclasses.replace(config, data=data), steps=1, eval_every=0), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "9 training images, 4 categories: circle, square, triangle, figure",
        "1 error, left out of the data",
    ]
    assert removed.name in lines[3] and "there is no such file" in lines[3]


def test_batches_pass_through_an_own_function_and_are_erased_in_the_mean_colour(
    config, tmp_path, counted_steps
):
    def white(example, generator):
        return dataclasses.replace(example, image=np.full_like(example.image, 255))

    config.data.erase = 1.0
    config.model.pixel_mean = (30.0, 20.2, 10.0)
    loop.train(_with(config, steps=1, eval_every=0), tmp_path / "run", augment=white)
    ((_, batch),) = counted_steps
    colours = np.unique(np.asarray(batch.images).reshape(-1, 3), axis=0)
    assert colours.tolist() == [[30, 20, 10], [255, 255, 255]]
    assert "white" not in (tmp_path / "run" / "config.json").read_text()


class Pictures:
    """The same pictures without a file: each with one square that fills it."""

    categories = "circle", "square", "triangle", "figure"

    def __len__(self):
        return 8

    def __getitem__(self, index):
        box = [8, 8, 56, 56]
        return {"image": np.full((64, 64, 3), index, np.uint8), "labels": ["square"], "boxes": [box]}


@pytest.mark.parametrize(("eval_images", "count"), [(0, 3), (2, 2)])
def test_as_many_images_are_evaluated_as_asked(
    config, tmp_path, monkeypatch, counted_steps, eval_images, count
):
    seen = []
    monitor = loop.Monitor

    def make_monitor(workdir, blueprint, config, categories, validation, *_):
        seen.append(len(validation.ids))
        return monitor(workdir, blueprint, config, categories, None)

    monkeypatch.setattr(loop, "Monitor", make_monitor)
    monkeypatch.setattr(monitor, "evaluate", lambda *_: {"bbox_AP": 1.0})
    loop.train(_with(config, steps=1, eval_images=eval_images), tmp_path)
    assert seen == [count]


def test_data_and_callbacks_of_a_programs_own(config, tmp_path, monkeypatch, counted_steps, capsys):
    told, evaluated = [], []

    def evaluate(detector, source, **_):
        evaluated.append(source)
        return {"bbox": {"AP": 30.0, "AP50": None}, "per_category": {}}

    monkeypatch.setattr("mrcnn_jax.training.monitor.evaluate", evaluate)
    monkeypatch.setattr(loop.Monitor, "_write_pictures", lambda *_: tmp_path)
    model = dataclasses.replace(config.model, mask=False, keypoint=False)
    config = dataclasses.replace(_with(config, epochs=2.5, eval_every=2), model=model)
    pictures = Pictures()
    assert loop.train(
        config,
        str(tmp_path),
        source=pictures,
        validation=pictures,
        callbacks=[lambda step, values: told.append((step, values))],
    )
    assert len(counted_steps) == 3  # of 8 images each: 2.5 epochs
    assert "\ntrain.epochs is 2.5: 3 steps of 8 images\n" in capsys.readouterr().out
    assert [step for step, _ in told] == [2, 2, 3, 3]
    assert told[0][1]["train/loss"] == 1.5 and told[2][1]["train/loss"] == 3.0
    assert told[1][1] == told[3][1] == {"validation/bbox_AP": 30.0}
    assert [source.name for source in evaluated] == ["Pictures", "Pictures"]
    _, batch = counted_steps[0]
    assert sorted(np.asarray(batch.images)[:, 0, 0, 0].tolist()) == list(range(8))
    assert read_run(tmp_path).config.train.steps == 3
    # Without validation data of its own it does not evaluate on those of the config.
    loop.train(config, tmp_path / "other", source=pictures)
    assert len(evaluated) == 2


@pytest.mark.parametrize("names", [pytest.param(Pictures.categories, marks=pytest.mark.slow), ("cat", "dog")])
def test_a_run_that_begins_from_another(
    config, tmp_path, monkeypatch, capsys, counted_steps, drawn_eagerly, names
):
    monkeypatch.setattr(loop, "make_blueprint", make_blueprint)
    model = dataclasses.replace(config.model, mask=False, keypoint=False)
    config = dataclasses.replace(_with(config, steps=1, eval_every=0), model=model)
    weights = make_blueprint(model, num_classes=len(names), num_keypoints=0).initialize(jax.random.key(7))
    ids = tuple(range(1, len(names) + 1))
    write_run(tmp_path / "earlier", config, Categories(ids, names))
    with Checkpoints(tmp_path / "earlier", keep=1) as checkpoints:
        checkpoints.save(0, weights)

    loop.train(config, tmp_path / "run", source=Pictures(), init=str(tmp_path / "earlier"))
    new_layers = () if names == Pictures.categories else ("box_head.cls_score", "box_head.bbox_pred")
    said = f"begins from {tmp_path}/earlier; re-initialised layers: {', '.join(new_layers) or 'none'}\n"
    assert said in capsys.readouterr().out
    assert read_run(tmp_path / "run").categories.names == Pictures.categories
    state, _ = counted_steps[0]
    taken = {**state.params, **state.frozen, **state.batch_stats}
    assert taken["box_head.cls_score.bias"].shape == (5,)
    for name, array in taken.items():
        if name.rpartition(".")[0] not in new_layers:
            np.testing.assert_array_equal(array, weights[name], err_msg=name)
    # A run that is resumed has begun already.
    loop.train(config, tmp_path / "run", source=Pictures(), init=tmp_path / "none")
    assert "already trained for 1 steps" in capsys.readouterr().out
