"""Runs that take from another one only what both models have, and two runs joined into one."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import read_run, write_run
from mrcnn_jax.weights import detectron2
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.torchvision import check_in_torchvision

pytestmark = pytest.mark.usefixtures("drawn_eagerly")
ALONE = {"box": False, "mask": False, "keypoint": False}
NAMES = "cat", "dog", "cow", "hen"


def changed(config, **changes):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def categories(names=NAMES):
    ids = tuple(range(1, len(names) + 1))
    return Categories(ids, names, keypoint_labels=(len(names),), keypoint_names=tuple("abcdefghi"))


def without(weights, *modules):
    return {name: array for name, array in weights.items() if name.partition(".")[0] not in modules}


def save(path, config, weights, names=NAMES):
    write_run(path, config, categories(names))
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(0, weights)
    return path


@pytest.fixture
def heads(tmp_path, tiny_config, tiny_weights):
    """A run without an RPN."""
    return save(tmp_path / "heads", changed(tiny_config, rpn=False), without(tiny_weights, "rpn"))


@pytest.fixture
def rpn(tmp_path, tiny_config, tiny_weights):
    """A run without heads, whose RPN is that of ``tiny_weights`` plus 1, with other categories."""
    weights = without(tiny_weights, "box_head", "mask_head", "keypoint_head")
    weights = {name: x + 1 if name.startswith("rpn.") else x for name, x in weights.items()}
    return save(tmp_path / "rpn", changed(tiny_config, **ALONE), weights, names=("thing",))


def test_the_parts_of_a_model_by_name(tiny_config, tiny_weights):
    modules = {name.partition(".")[0] for name in tiny_weights}
    assert modules == {"backbone", "fpn", "rpn", "box_head", "mask_head", "keypoint_head"}
    for changes, expected in (
        (ALONE, {"backbone", "fpn", "rpn"}),
        ({"rpn": False}, modules - {"rpn"}),
        (ALONE | {"features": "c4", "backbone_depth": 50, "padding_multiple": 1}, {"backbone", "rpn"}),
    ):
        shapes = make_blueprint(
            changed(tiny_config, **changes).model, num_classes=4, num_keypoints=9
        ).shapes()
        assert {name.partition(".")[0] for name in shapes} == expected


def test_frozen_layers_by_name(tiny_config, tiny_weights):
    config = changed(tiny_config, fpn_norm="batch", fpn_frozen=True, backbone_frozen_stages=5)
    blueprint = make_blueprint(config.model, num_classes=4, num_keypoints=9)
    shapes = blueprint.shapes()
    params, frozen, batch_stats = blueprint.split({name: jnp.zeros(x.shape) for name, x in shapes.items()})
    assert {name.partition(".")[0] for name in frozen} == {"backbone", "fpn"} and not batch_stats
    assert {name.partition(".")[0] for name in params} == {"rpn", "box_head", "mask_head", "keypoint_head"}
    trained = changed(config, fpn_frozen=False, backbone_frozen_stages=0)
    assert (
        make_blueprint(trained.model, num_classes=4, num_keypoints=9).shapes() == shapes
    )  # so that one run takes the other's weights


def test_an_rpn_begins_from_heads(heads, tiny_config, tiny_weights, tmp_path):
    config = changed(tiny_config, **ALONE, backbone_frozen_stages=5, fpn_frozen=True)
    made = import_weights("run", heads, config, tmp_path / "new")
    assert made.new_layers == ("rpn",) and made.left_out == ("box_head", "keypoint_head", "mask_head")
    _, weights = load_weights(tmp_path / "new")
    drawn = make_blueprint(config.model, num_classes=4, num_keypoints=9).draw(jax.random.key(0))
    for name, array in weights.items():
        expected = drawn if name.startswith("rpn.") else tiny_weights
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_settings_of_absent_parts_may_differ(heads, tiny_config, tmp_path):
    config = changed(tiny_config, **ALONE, box_channels=32, mask_channels=16, roi_aligned=False)
    import_weights("run", heads, config, tmp_path / "new")
    config = changed(config, fpn_channels=8)
    with pytest.raises(
        ValueError, match=r"different model:\n  model\.fpn_channels: 8 in the config, 16 in the run$"
    ):
        import_weights("run", heads, config, tmp_path / "newer")
    assert not (tmp_path / "newer").exists()


def test_new_heads_for_new_categories(rpn, tiny_config, tmp_path):
    made = import_weights(
        "run", rpn, tiny_config, tmp_path / "new", new_categories=categories(("cat", "dog"))
    )
    assert made.new_layers == ("box_head", "keypoint_head", "mask_head")
    assert load_weights(tmp_path / "new")[1]["box_head.cls_score.bias"].shape == (3,)


def test_a_keypoint_head_for_a_run_without_keypoints(tiny_config, tiny_weights, tmp_path):
    """As trained on data of which no part was to learn keypoints."""
    path = tmp_path / "rpn"
    write_run(path, changed(tiny_config, **ALONE), Categories((1, 2, 3, 4), NAMES))
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(0, without(tiny_weights, "box_head", "mask_head", "keypoint_head"))
    with pytest.raises(ValueError, match=r"rpn has no keypoints, and model.keypoint is True"):
        import_weights("run", path, tiny_config, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    made = import_weights("run", path, tiny_config, tmp_path / "run", new_categories=categories())
    assert set(made.new_layers) == {"box_head", "mask_head", "keypoint_head"}
    _, weights = load_weights(tmp_path / "run")
    assert weights["keypoint_head.kps_score_lowres.bias"].shape == (9,)
    assert read_run(tmp_path / "run").categories == categories()


def test_two_runs_are_joined(rpn, heads, tiny_config, tiny_weights, tmp_path):
    for number, (first, second) in enumerate([(rpn, heads), (heads, rpn)]):
        workdir = tmp_path / f"joined{number}"
        made = import_weights("run", first, tiny_config, workdir, join=second)
        assert made.new_layers == made.left_out == ()
        assert read_run(workdir).categories.names == NAMES  # the heads'
        _, weights = load_weights(workdir)
        assert weights.keys() == tiny_weights.keys()
        for name, array in tiny_weights.items():
            expected = array + 1 if name.startswith("rpn.") else array
            np.testing.assert_array_equal(weights[name], expected, err_msg=name)


def test_runs_of_other_features_are_not_joined(heads, tiny_config, tiny_weights, tmp_path):
    weights = without(tiny_weights, "box_head", "mask_head", "keypoint_head")
    weights["fpn.layer.0.conv.bias"] = weights["fpn.layer.0.conv.bias"] + 1e-6
    other = save(tmp_path / "other", changed(tiny_config, **ALONE), weights)
    with pytest.raises(ValueError, match=r"heads and .*other differ in 1 arrays .*fpn\.layer\.0\.conv\.bias"):
        import_weights("run", heads, tiny_config, tmp_path / "new", join=other)
    assert not (tmp_path / "new").exists()


def test_a_part_that_both_lack(heads, tiny_config, tmp_path):
    with pytest.raises(ValueError, match=r"heads lacks what .*heads lacks, too: model\.rpn$"):
        import_weights("run", heads, tiny_config, tmp_path / "new", join=heads)


def test_options_that_do_not_go_with_join(heads, tiny_config, tmp_path):
    for source, options in (("torchvision", {}), ("run", {"new_categories": categories()})):
        with pytest.raises(ValueError, match="--join completes a run"):
            import_weights(source, heads, tiny_config, tmp_path / "new", join=heads, **options)


def of_detectron2(config, path):
    """A file with Detectron2's names and shapes of the config's model; every array holds its number."""
    wanted = detectron2.layouts(make_blueprint(config.model, num_classes=4, num_keypoints=9))
    np.savez(path, **{x.name: np.full(x.shape, i, np.float32) for i, x in enumerate(wanted.values())})
    return path


@pytest.mark.parametrize("changes", [ALONE, {"rpn": False, "mask": False, "keypoint": False}])
def test_parts_of_detectron2(tiny_config, tmp_path, changes):
    config = changed(tiny_config, **changes)
    file = of_detectron2(config, tmp_path / "model.npz")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"categories": [{"id": i, "name": str(i)} for i in range(4)]}))
    import_weights("detectron2", file, config, tmp_path / "run", categories=names)
    _, weights = load_weights(tmp_path / "run")
    with np.load(file) as arrays:
        assert len(arrays) == len(weights)
        theirs = {name.partition(".")[0] for name in arrays}
    assert ("proposal_generator" in theirs) == config.model.rpn
    assert ("roi_heads" in theirs) == config.model.box
    # The file fits no other model, which the message says.
    others = [part for part, value in changes.items() if value != getattr(tiny_config.model, part)]
    with pytest.raises(ValueError) as error:
        import_weights("detectron2", file, tiny_config, tmp_path / "new")
    for part in others:
        assert f"model.{part} is True in the config, False in the file" in str(error.value)


def test_an_rpn_finds_objects_of_any_categories(tiny_config, tmp_path):
    """So COCO's 80, which are assumed, need not be those of the file."""
    config = changed(tiny_config, **ALONE)
    file = of_detectron2(config, tmp_path / "model.npz")
    made = import_weights("detectron2", file, config, tmp_path / "run")
    assert len(made.categories) == 80


@pytest.mark.parametrize("part", ["rpn", "box"])
def test_torchvision_has_no_such_model(part):
    with pytest.raises(
        ValueError, match=rf"no such model:\n  model\.{part} is False; torchvision's detectors"
    ):
        check_in_torchvision(ModelConfig(**{part: False}))
