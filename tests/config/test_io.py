import json

import pytest

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.config.io import differences, from_dict


def test_from_dict_undoes_to_dict_through_json():
    config = Config()
    config.train.steps = 7
    config.data.canvases = ((1344, 1344),)
    config.model.anchor_ratios = (1.0,)
    assert from_dict(to_dict(config)) == config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_from_dict_keeps_the_defaults_of_absent_fields():
    config = from_dict({"train": {"steps": 7}})
    assert config.train.steps == 7
    config.train.steps = Config().train.steps
    assert config == Config()


def test_from_dict_makes_tuples_of_lists_and_floats_of_ints():
    config = from_dict({"model": {"anchor_sizes": [8, 16, 32, 64, 128]}, "data": {"canvases": [[64, 64]]}})
    assert config.model.anchor_sizes == (8.0, 16.0, 32.0, 64.0, 128.0)
    assert all(type(size) is float for size in config.model.anchor_sizes)
    assert config.data.canvases == ((64, 64),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"stepz": 3}}, "unknown field train.stepz; nearest: steps"),
        ({"train": {"mask_grid": 3}}, "unknown field train.mask_grid; nearest: data.mask_grid"),
        ({"steps": 3}, "unknown field steps; nearest: train.steps"),
        ({"tets": {}}, "unknown field tets; nearest: test"),
        ({"train": {"lr": 0.1}}, "unknown field train.lr; use train.learning_rate"),
        (
            {"model": {"num_classes": 3}},
            "unknown field model.num_classes; the categories come from data.train_annotations, and travel "
            "with the run",
        ),
        ({"train": {"steps": "3"}}, "train.steps is '3'; must be of type int"),
        ({"train": {"momentum": 10**400}}, "0...; must be of type float"),
        ({"train": {"steps": True}}, "train.steps is True; must be of type int"),
        ({"train": {"steps": 3.0}}, "train.steps is 3.0; must be of type int"),
        ({"model": {"mask": 1}}, "model.mask is 1; must be of type bool"),
        ({"train": {"decay_steps": [1, "b"]}}, "decay_steps is [1, 'b']; must be of type tuple[int, ...]"),
        (
            {"data": {"crop_size": [1]}},
            "crop_size is [1]; must be of type tuple[float, float]",
        ),
        ({"train": 3}, "train is 3; must be a dict of its fields"),
        ([1], "a config must be a dict of sections, not [1]"),
    ],
)
def test_from_dict_names_what_is_wrong(values, message):
    with pytest.raises(ValueError) as error:
        from_dict(values)
    assert str(error.value).endswith(message)


def test_from_dict_reports_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        from_dict({"train": {"stepz": 3, "seed": None}, "tets": {}})
    assert len(str(error.value).splitlines()) == 3


def test_differences_by_hand():
    here, run = Config(), Config()
    assert differences(here, run) == {}
    here.train.steps, run.train.steps = 500, 300
    run.data.root = "elsewhere"
    assert differences(here, run) == {"data.root": ("data/coco", "elsewhere"), "train.steps": (500, 300)}
