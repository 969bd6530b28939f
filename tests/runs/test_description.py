import dataclasses
import json

import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.description import Run, how_to_train_longer, read_run, write_run

CATEGORIES = Categories(
    ids=(3, 7),
    names=("circle", "figure"),
    keypoint_labels=(2,),
    keypoint_names=("head", "left foot", "right foot"),
    skeleton=((0, 1), (0, 2)),
    flip_pairs=((1, 2),),
    sigmas=(0.05, 0.1, 0.1),
)
CATEGORIES_JSON = json.dumps(vars(CATEGORIES))


def test_read_returns_what_was_written(tmp_path):
    config = Config()
    config.train.steps = 7
    config.data.root = "données"
    write_run(tmp_path / "new" / "run", config, CATEGORIES)
    assert read_run(tmp_path / "new" / "run") == Run(config, CATEGORIES)
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == [
        "categories.json",
        "config.json",
    ]


def test_one_value_per_line(tmp_path):
    write_run(tmp_path, Config(), CATEGORIES)
    assert (
        '    "train_short_sides": [640, 672, 704, 736, 768, 800],\n' in (tmp_path / "config.json").read_text()
    )
    assert '  "names": ["circle", "figure"],\n' in (tmp_path / "categories.json").read_text()


def test_settings_that_affect_no_step_may_change_on_resume(tmp_path):
    write_run(tmp_path, Config(), CATEGORIES)
    config = Config()
    config.data.root = "elsewhere"
    config.train.log_every = 1
    config.train.steps = 120_000
    config.test.detections = 10
    write_run(tmp_path, config, CATEGORIES)
    assert read_run(tmp_path).config == config


def test_other_settings_are_an_error_and_leave_the_run_unchanged(tmp_path):
    write_run(tmp_path, Config(), CATEGORIES)
    config = Config()
    config.train.batch_size = 8
    config.model.mask = False
    config.test.detections = 10
    with pytest.raises(ValueError) as error:
        write_run(tmp_path, config, Categories(ids=(3, 7), names=("circle", "square")))
    message = str(error.value)
    assert message.startswith(f"{tmp_path} holds a run with other settings:")
    assert "\n  train.batch_size: 8 here, 16 in the run\n" in message
    assert "\n  model.mask: False here, True in the run\n" in message
    assert "\n  categories.names: ('circle', 'square') here, ('circle', 'figure') in the run\n" in message
    assert "another --workdir" in message
    assert "detections" not in message and "convert" not in message  # it refuses another model, too
    assert read_run(tmp_path) == Run(Config(), CATEGORIES)


def test_an_untrained_run_may_change_all_but_its_model_and_categories(tmp_path):
    write_run(tmp_path, Config(), CATEGORIES)
    config = Config()
    config.train.batch_size = 8
    config.data.max_objects = 7
    config.model.dtype = "bfloat16"
    config.model.backbone_frozen_stages = 0
    config.model.backbone_weights = "resnet50.npz"
    with pytest.raises(ValueError, match=r"train\.batch_size: 8 here, 16 in the run"):
        write_run(tmp_path, config, CATEGORIES)
    write_run(tmp_path, config, CATEGORIES, untrained=True)
    assert read_run(tmp_path).config == config

    other = Config()
    other.model.roi_aligned = False
    with pytest.raises(ValueError) as error:
        write_run(tmp_path, other, Categories(ids=(3, 7), names=("circle", "square")), untrained=True)
    message = str(error.value)
    assert "\n  model.roi_aligned: False here, True in the run\n" in message
    assert "\n  categories.names: ('circle', 'square') here, ('circle', 'figure') in the run\n" in message
    assert "batch_size" not in message and "dtype" not in message
    assert read_run(tmp_path) == Run(config, CATEGORIES)


def test_parts_of_a_batch_matter_to_batch_norms_only(tmp_path):
    config = Config()
    write_run(tmp_path / "frozen", config, CATEGORIES)
    config.model.fpn_norm = "batch"
    write_run(tmp_path / "batch", config, CATEGORIES)
    config.train.accumulate = 2
    with pytest.raises(ValueError, match=r"train\.accumulate: 2 here, 1 in the run"):
        write_run(tmp_path / "batch", config, CATEGORIES)
    config.model.fpn_norm = ""
    write_run(tmp_path / "frozen", config, CATEGORIES)
    assert read_run(tmp_path / "frozen").config.train.accumulate == 2


def test_the_cosine_schedule_depends_on_the_number_of_steps(tmp_path):
    config = Config()
    config.train.schedule = "cosine"
    write_run(tmp_path, config, CATEGORIES)
    config.train.steps = 7
    with pytest.raises(ValueError, match=r"train\.steps: 7 here, 90000 in the run") as error:
        write_run(tmp_path, config, CATEGORIES)
    # Both messages name the same way.
    way = (
        f"mrcnn-jax convert --source=run --input={tmp_path} --config=FILE --workdir=NEW, and train with "
        f"--workdir=NEW (train --init={tmp_path} --workdir=NEW does both)"
    )
    assert str(error.value).endswith(way)
    assert how_to_train_longer(tmp_path, config) == (
        "the schedule 'cosine' ends there; "
        f"to train from its weights with other settings, make a new run: {way}"
    )
    assert how_to_train_longer(tmp_path, Config()) == "raise --config.train.steps to continue"


def test_keypoints_need_no_sigmas(tmp_path):
    bare = dataclasses.replace(CATEGORIES, sigmas=())
    write_run(tmp_path, Config(), bare)
    assert read_run(tmp_path) == Run(Config(), bare)
    # They can be added later, when evaluation needs them.
    write_run(tmp_path, Config(), CATEGORIES)
    assert read_run(tmp_path) == Run(Config(), CATEGORIES)


def test_a_directory_that_is_missing_or_not_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such directory"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "r50.pth").touch()
    with pytest.raises(NotADirectoryError, match=r"is a file, .*backbone_weights=.*r50\.pth$"):
        read_run(tmp_path / "r50.pth")
    with pytest.raises(FileNotFoundError, match=r"is not the directory of a run: it has no config\.json"):
        read_run(tmp_path)
    write_run(tmp_path, Config(), CATEGORIES)
    (tmp_path / "categories.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no categories\.json"):
        read_run(tmp_path)


def test_a_categories_file_without_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "categories.json").write_text("mine")
    with pytest.raises(ValueError) as error:
        write_run(tmp_path, Config(), CATEGORIES)
    assert str(error.value).startswith(f"{tmp_path}/categories.json exists without config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["categories.json"]
    assert (tmp_path / "categories.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "", "config.json: the file is empty"),
        ("config.json", '{"train": {"steps": 1', "config.json: not valid JSON"),
        ("config.json", "[" * 100_000, "config.json: not valid JSON"),
        ("config.json", "\0\xff", "config.json: not valid JSON"),
        ("config.json", '{"train": {"stepz": 1}}', "unknown field train.stepz; nearest: steps"),
        (
            "config.json",
            '{"test": {"candidates": 1000000000000}}',
            "test.candidates is 1000000000000; must be at",
        ),
        ("config.json", '{"train": {"steps": 1' + "0" * 5000 + "}}", "config.json: not valid JSON"),
        ("config.json", '{"train": {"steps": 0}}', "config.json: train.steps is 0; must be positive"),
        ("categories.json", "{", "categories.json: not valid JSON"),
        ("categories.json", "[]", "categories.json: must be an object with the fields ids, names, "),
        ("categories.json", '{"ids": [1], "names": ["a"]}', "must be an object with the fields"),
        (
            "categories.json",
            CATEGORIES_JSON.replace("3", '"3"'),
            "json: ids is ['3', 7]; must be of type",
        ),
        ("categories.json", CATEGORIES_JSON.replace("3", "7"), "categories.json: ids must not repeat"),
    ],
)
def test_malformed_files_are_named(tmp_path, file, text, message):
    write_run(tmp_path, Config(), CATEGORIES)
    (tmp_path / file).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError) as error:
        read_run(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ids", (3, 3), "ids must not repeat"),
        ("ids", (3, 2**63), "ids must fit 64 bits"),
        ("names", ("circle", "fig\x1b[2Jure"), "names must not have control characters"),
        ("names", ("circle", "figure\n"), "names must not have control characters"),
        ("keypoint_names", ("a", "b", "c\x9b"), "names must not have control characters"),
        ("names", ("circle", "x" * 1001), "names must have at most 1000 characters"),
        ("skeleton", ((0, 1),) * 100_001, "there must be at most 100000 of anything"),
        ("names", ("circle",), "there must be as many names as ids (2)"),
        ("keypoint_labels", (0,), "keypoint_labels must be from 1 to 2"),
        ("skeleton", ((0, 3),), "must be indices of the 3 keypoint_names"),
        ("flip_pairs", ((-1, 2),), "must be indices of the 3 keypoint_names"),
        ("sigmas", (0.1,), "there must be no sigmas or as many as keypoint_names (3)"),
        ("sigmas", (0.1, 0.1, 0.0), "sigmas must be positive"),
    ],
)
def test_inconsistent_categories_are_an_error(tmp_path, field, value, message):
    values = {**vars(CATEGORIES), field: value}
    with pytest.raises(ValueError) as error:
        write_run(tmp_path, Config(), Categories(**values))
    assert message in str(error.value)
    assert not (tmp_path / "config.json").exists()


def test_names_with_surrogates_are_read_back(tmp_path):
    categories = dataclasses.replace(CATEGORIES, names=("caf\udce9", "half \ud83d"))
    config = Config()
    config.data.root = "data/caf\udce9"
    for _ in range(2):
        write_run(tmp_path, config, categories)
        assert read_run(tmp_path) == Run(config, categories)
    json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
