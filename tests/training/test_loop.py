import dataclasses
import io
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

import mrcnn_jax
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.json_files import write_json
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import read_run, write_run
from mrcnn_jax.runtime.compilations import CompilationTracker
from mrcnn_jax.training import loop
from mrcnn_jax.training.state import initial_weights

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def workdir(config, shared_programs, tmp_path_factory):
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(config, path)
    return path


def _with(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


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


def test_when_it_reports_evaluates_and_saves(config, tmp_path, monkeypatch, capsys, counted_steps):
    evaluated, saved, clock = [], {}, []

    class Log(loop.StepLog):
        def add(self, step, metrics, *, waited):
            assert waited > 0
            self.last = step
            super().add(step, metrics, waited=waited)

        def restart_clock(self, after=None):
            clock.append(self.last)
            return super().restart_clock(after)

    def evaluate(monitor, step, weights):
        evaluated.append(step)
        return {"bbox": float(step)}

    monkeypatch.setattr(loop, "StepLog", Log)
    monkeypatch.setattr(loop.Monitor, "evaluate", evaluate)
    monkeypatch.setattr(loop.Checkpoints, "save", lambda self, step, *items: saved.update({step: items[-1]}))
    config = _with(config, steps=8, log_every=5, eval_every=3, checkpoint_every=4)
    assert loop.train(config, tmp_path)
    assert evaluated == [3, 6, 8]
    assert saved == {3: {"bbox": 3.0}, 4: None, 6: {"bbox": 6.0}, 8: {"bbox": 8.0}}
    # After compiling, with every line, and after every save: none of these counts for the images a second.
    assert clock == [1, 3, 3, 4, 4, 5, 6, 6, 8, 8]
    lines = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"^step +(\d+)/", lines, re.MULTILINE)] == [3, 4, 5, 6, 8]
    # There are 1, 3, 4, 4, 5, 5, 6, 6, 7 and 8 objects in the images.
    assert "6 images have more than 4 objects (data.max_objects): the smallest are ignored" in lines


def test_compilations_are_announced(config, tmp_path, monkeypatch, capsys, counted_steps):
    make_step = loop.compile_step

    def compile_step(*arguments):
        take_step = make_step(*arguments)
        tracker = CompilationTracker("the training step", config.data.canvases)

        def run(state, batch):
            compiles = tracker.record(batch.images, batch)
            with tracker.announced(batch.images, compiles):
                return take_step(state, batch)

        return run

    monkeypatch.setattr(loop, "compile_step", compile_step)
    loop.train(_with(config, steps=2, eval_every=0), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("training on 8 device(s)")
    assert lines[begin + 1] == "compiling the training step for canvas 64x64 ..."
    assert re.fullmatch(r"\.\.\. \d+ s", lines[begin + 2])
    assert lines[begin + 3].startswith("first step after ") and lines[begin + 4].startswith("step 2/2 ")


@pytest.mark.slow
def test_it_goes_on_where_it_ended(config, tmp_path, counted_steps):
    """With the batches, the state and the key that the steps would have had in one run."""
    first = _with(config, steps=5, seed=3, eval_every=0, checkpoint_every=100)
    loop.train(first, tmp_path)
    loop.train(_with(first, steps=8), tmp_path)
    batches = training_batches(
        open_data_source(config),
        config.data,
        batch_size=8,
        seed=3,
        start_step=0,
        masks=True,
        keypoints=True,
        process_index=0,
        process_count=1,
    )
    assert len(counted_steps) == 8
    for step, ((state, found), wanted) in enumerate(zip(counted_steps, batches, strict=False)):
        assert found.ids is None
        jax.tree.map(np.testing.assert_array_equal, found, dataclasses.replace(wanted, ids=None))
        assert int(state.step) == step
        assert {int(x.min()) for x in jax.tree.leaves(state.opt_state)} == {step}
        np.testing.assert_array_equal(
            *map(jax.random.key_data, jax.device_get([state.key, jax.random.key(3)]))
        )
    begun = {event.step for event in _events(tmp_path) if event.session_log.status == SessionLog.START}
    assert begun == {1, 6}  # what was written of these steps and later ones is dropped


@pytest.mark.slow
def test_the_latest_checkpoints_are_kept(config, tmp_path, counted_steps):
    loop.train(_with(config, eval_every=0, checkpoint_every=1, keep_checkpoints=2), tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"3", "4"}


def test_batches_hold_what_the_heads_learn_from(config, tmp_path, counted_steps):
    config = _with(config, steps=1, eval_every=0)
    for mask in (True, False):
        model = dataclasses.replace(config.model, mask=mask, keypoint=not mask)
        loop.train(dataclasses.replace(config, model=model), tmp_path / str(mask))
        _, batch = counted_steps[-1]
        assert (batch.gt.masks is not None, batch.gt.keypoints is not None) == (mask, not mask)


def test_batches_are_on_the_devices_two_ahead_and_in_order(tiny_batch):
    taken = []

    def batches():
        for number in range(5):
            taken.append(number)
            yield tiny_batch.replace(images=np.full((8, 4, 1, 3), number, np.uint8))

    on_devices = loop._on_devices(batches(), make_mesh(spatial_devices=4))
    batch = next(on_devices)
    assert [int(batch.images.max()), int(next(on_devices).images.max())] == [0, 1]
    assert taken == [0, 1, 2, 3]
    shards = [{shard.data.shape for shard in x.addressable_shards} for x in (batch.images, batch.gt.labels)]
    assert shards == [{(4, 1, 1, 3)}, {(4, 4)}]


def test_the_backbones_weights_are_those_of_its_file(config, tiny_blueprint, monkeypatch, capsys):
    drawn = []

    def draw(blueprint, key):
        drawn.append(jax.random.key_data(key).tolist())
        return {"backbone.a": jnp.zeros(1), "fpn.b": jnp.zeros(1)}

    monkeypatch.setattr(type(tiny_blueprint), "draw", draw)
    of_file = {"backbone.a": jnp.ones(1)}
    monkeypatch.setattr("mrcnn_jax.training.state.load_backbone", lambda *_: (of_file, ["backbone.c"]))
    config = _with(config, seed=3)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, backbone_weights="resnet.pth")
    )
    weights = initial_weights(tiny_blueprint, config)
    assert {name: float(value[0]) for name, value in weights.items()} == {"backbone.a": 1, "fpn.b": 0}
    assert drawn == [jax.random.key_data(jax.random.key(3)).tolist()]
    lines = capsys.readouterr().out
    assert "backbone from resnet.pth, assumed to expect rgb pixels" in lines
    assert "not in that file, so trained from scratch: backbone.c" in lines and "stay random" not in lines
    frozen = dataclasses.replace(tiny_blueprint, frozen_layers=frozenset(["fpn.b", "backbone.a"]))
    initial_weights(frozen, _with(config, frozen=("fpn.*", "backbone.*")))
    lines = capsys.readouterr().out
    assert "these arrays stay random, as they are frozen (train.frozen): fpn.b\n" in lines


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


@pytest.mark.slow
def test_with_averages_and_parts_it_ends_bit_equal_too(config, tmp_path, monkeypatch):
    config = _with(config, ema_decay=0.9, accumulate=2, batch_size=16)
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    loop.train(config, whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _interrupted_at(4, patch, KeyboardInterrupt())
        loop.train(config, interrupted)
    loop.train(config, interrupted)
    (step, wanted), (_, found) = load_weights(whole), load_weights(interrupted)
    assert step == 4
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def converted(config, workdir, tmp_path):
    """A run of random weights, with a label in no use before the dataset's four, and no sigmas."""
    used = read_run(workdir).categories
    categories = dataclasses.replace(
        used, ids=(9, *used.ids), names=("N/A", *used.names), keypoint_labels=(5,), sigmas=()
    )
    blueprint = make_blueprint(config.model, num_classes=5, num_keypoints=len(categories.keypoint_names))
    write_run(tmp_path, config, categories)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(0, blueprint.initialize(jax.random.key(7)))
    return tmp_path


def test_a_run_begins_from_its_first_weights(config, tiny_weights, tmp_path, capsys, counted_steps):
    categories = open_data_source(config).categories
    write_run(tmp_path, config, categories)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(0, tiny_weights)
    config = _with(config, eval_every=0)
    loop.train(config, tmp_path)
    assert f"beginning from the weights in {tmp_path}" in capsys.readouterr().out
    state, _ = counted_steps[0]
    for name, value in state.weights().items():
        np.testing.assert_array_equal(value, tiny_weights[name], err_msg=name)
    key = jax.random.key(config.train.seed)
    np.testing.assert_array_equal(*map(jax.random.key_data, jax.device_get([state.key, key])))
    # From now on it is a run like any other.
    with pytest.raises(ValueError, match=r"train.batch_size: 16 here, 8 in the run"):
        loop.train(_with(config, batch_size=16), tmp_path)


def test_a_run_of_weights_takes_other_settings_and_keeps_its_labels(config, converted, monkeypatch):
    seen = []

    def compile_step(blueprint, *_):
        def run(state, batch):
            seen.append((state, batch))
            raise KeyboardInterrupt

        return run

    monkeypatch.setattr(loop, "compile_step", compile_step)
    config = _with(config, learning_rate=0.5, seed=3)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, converted)
    ((state, batch),) = seen
    assert int(state.step) == 0
    _, weights = load_weights(converted)
    for name, value in state.weights().items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    labels = np.asarray(batch.gt.labels)[np.asarray(batch.gt.valid & ~batch.gt.crowd)]
    assert set(labels.tolist()) <= {2, 3, 4, 5} and labels.max() == 5  # the figures
    run = read_run(converted)
    assert run.config.train.learning_rate == 0.5
    assert run.categories.names[:2] == ("N/A", "circle")
    assert run.categories.sigmas  # the dataset's, as evaluation needs them


def test_other_categories_than_the_runs(config, converted):
    run = read_run(converted)
    names = ("N/A", "ball", *run.categories.names[2:])
    write_json(converted / "categories.json", vars(dataclasses.replace(run.categories, names=names)))
    with pytest.raises(ValueError) as error:
        loop.train(config, converted)
    assert "category 1 is 'circle', in the run 'ball'" in str(error.value)
    assert "mrcnn-jax convert --source=run --new_categories=FILE" in str(error.value)


def test_a_run_whose_training_state_was_removed(config, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4" / "training")
    with pytest.raises(ValueError) as error:
        loop.train(config, tmp_path / "run")
    assert "checkpoints/4 has no folder 'training', so the run cannot go on" in str(error.value)
    assert f"mrcnn-jax convert --source=run --input={tmp_path / 'run'} " in str(error.value)


def test_a_finished_run_is_left_alone(config, workdir, capsys):
    loop.train(config, workdir)
    assert "already trained for 4 steps; raise --config.train.steps to continue\n" in capsys.readouterr().out


def test_step_lines_say_losses_rate_and_time_left(config, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _interrupted_at(3, patch, KeyboardInterrupt())
        loop.train(config, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["2/4"]
    for word in ("  loss ", "  rpn ", " box ", " mask ", " keypoint ", "  lr ", " img/s", "  eta "):
        assert word in lines[0]


def test_another_config_does_not_continue_a_run(config, workdir):
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"train.learning_rate: 0.5 here, 0.02 in the run"):
        loop.train(other, workdir)


@pytest.mark.slow
def test_a_failed_evaluation_costs_no_training(config, tmp_path, monkeypatch, counted_steps):
    def fail(*_):
        raise ValueError("photo.jpg: cannot be read")

    monkeypatch.setattr(loop.Monitor, "evaluate", fail)
    with pytest.raises(ValueError, match=r"photo.jpg: cannot be read"):
        loop.train(config, tmp_path)
    assert load_weights(tmp_path)[0] == 4


def _events(workdir):
    paths = [str(path) for path in (workdir / "tensorboard").iterdir()]
    return [Event.FromString(record) for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()]


def test_tensorboard_has_losses_scores_and_pictures(workdir):
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    values = [(event.step, value) for event in _events(workdir) for value in event.summary.value]
    scalars = {(value.tag, step) for step, value in values if value.HasField("simple_value")}
    assert {
        ("train/loss", 2),
        ("train/mask", 4),
        ("train/lr", 4),
        ("validation/segm_AP", 4),
    } <= scalars
    pictures = [value for _, value in values if value.HasField("image")]
    assert len(pictures) == 3
    # What is annotated beside what was found, each of 64 pixels enlarged to be legible.
    assert pictures[0].image.width == 2 * 640 + 8


def test_tensorboard_has_the_config(config, workdir):
    values = {value.tag: value for event in _events(workdir) for value in event.summary.value}
    text = values["config/text_summary"].tensor.string_val[0].decode()
    assert "    model.backbone_depth: 18\n" in text and f"    train.steps: {config.train.steps!r}\n" in text
    start = values["_hparams_/session_start_info"].metadata.plugin_data.content
    found = HParamsPluginData.FromString(start).session_start_info.hparams
    assert found["train.steps"].number_value == config.train.steps and found["model.keypoint"].bool_value
    assert found["data.canvases"].string_value == "((64, 64),)" and "model.box" not in found  # the default
    experiment = HParamsPluginData.FromString(
        values["_hparams_/experiment"].metadata.plugin_data.content
    ).experiment
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert metrics == ["train/loss", *(f"validation/{kind}_AP" for kind in ("bbox", "segm", "keypoints"))]


def test_pictures_are_files_too(workdir):
    values = [value for event in _events(workdir) for value in event.summary.value]
    for number in (1, 2, 3):
        tag = f"validation/image_{number}"
        (shown,) = [value.image.encoded_image_string for value in values if value.tag == tag]
        file = workdir / "validation" / "4" / f"{number}.png"
        with Image.open(io.BytesIO(shown)) as wanted, Image.open(file) as found:
            np.testing.assert_array_equal(np.array(found), np.array(wanted))
    assert len(list((workdir / "validation").glob("**/*"))) == 5  # with scores.json


def test_the_run_predicts_by_itself(config, workdir):
    detector = mrcnn_jax.load(workdir)
    assert detector.categories.names == ("circle", "square", "triangle", "figure")
    photo = np.asarray(Image.new("RGB", (200, 100), "teal"))
    result = detector(photo)
    assert result.image_size == (100, 200)
    assert result.masks.shape == (len(result), 100, 200)
    assert (result.boxes[:, [1, 3]] <= 100).all()
