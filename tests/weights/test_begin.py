"""A run that begins from another one's weights, for its own data."""

import dataclasses

import jax
import numpy as np
import pytest

from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import read_run, write_run
from mrcnn_jax.weights.begin import begin_run

pytestmark = pytest.mark.usefixtures("drawn_eagerly")
NAMES = "cat", "dog", "cow", "hen"
KEYPOINTS = tuple("abcdefghi")


@pytest.fixture(scope="module")
def earlier(tiny_config, tiny_weights, tmp_path_factory):
    """A run with four categories, of which the last has keypoints."""
    path = tmp_path_factory.mktemp("earlier")
    write_run(path, tiny_config, categories(*NAMES))
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(0, tiny_weights)
    return path


def categories(*names):
    return Categories(
        tuple(range(1, len(names) + 1)), names, keypoint_labels=(len(names),), keypoint_names=KEYPOINTS
    )


def test_all_layers_are_kept_for_the_same_categories(earlier, tiny_config, tmp_path):
    assert begin_run(earlier, tiny_config, tmp_path / "run", categories(*NAMES)).new_layers == ()
    (_, found), (_, given) = load_weights(tmp_path / "run"), load_weights(earlier)
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_keypoint_head_is_made_for_the_keypoints_of_the_data(tiny_config, tiny_weights, tmp_path):
    """The run was trained on the same data, of which its model learnt no keypoints."""
    model = dataclasses.replace(tiny_config.model, keypoint=False)
    config = dataclasses.replace(tiny_config, model=model)
    write_run(tmp_path / "masks", config, Categories((1, 2, 3, 4), NAMES))
    masks = {name: x for name, x in tiny_weights.items() if not name.startswith("keypoint_head.")}
    with Checkpoints(tmp_path / "masks", keep=1) as checkpoints:
        checkpoints.save(0, masks)
    begun = begin_run(tmp_path / "masks", tiny_config, tmp_path / "run", categories(*NAMES))
    assert begun.new_layers == ("keypoint_head",)
    _, found = load_weights(tmp_path / "run")
    for name, array in masks.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert read_run(tmp_path / "run").categories == categories(*NAMES)


@pytest.mark.parametrize(
    ("names", "kept", "sentence"),
    [
        (
            ("cow", "horse", "cat"),
            ("cow", "cat"),
            "kept the outputs for 2 of 3 categories, by name: cow, cat; new: horse",
        ),
        (
            ("hen", "cow"),
            ("hen", "cow"),
            "kept the outputs for 2 of 2 categories, by name: hen, cow; new: none",
        ),
        (("horse", "Cat"), (), ""),
    ],
)
def test_other_categories(earlier, tiny_config, tmp_path, names, kept, sentence):
    begun = begin_run(str(earlier), tiny_config, tmp_path / "run", categories(*names))
    last_layers = ("box_head.cls_score", "box_head.bbox_pred", "mask_head.mask_fcn_logits")
    assert begun.new_layers == (() if len(kept) == len(names) else last_layers)
    assert (begun.kept_names, begun.kept_and_new_names()) == (kept, sentence)
    assert read_run(tmp_path / "run").categories.names == names

    (_, found), (_, given) = load_weights(tmp_path / "run"), load_weights(earlier)
    drawn = make_blueprint(tiny_config.model, num_classes=len(names), num_keypoints=len(KEYPOINTS)).draw(
        jax.random.key(tiny_config.train.seed)
    )
    # Outputs for each name, of which "background" comes first; the categories of ``earlier`` are NAMES.
    background = given if kept else drawn
    for layer, first, each in zip(last_layers, (1, 0, 0), (1, 4, 1), strict=True):
        for leaf in ("kernel", "bias"):
            array = found[f"{layer}.{leaf}"]
            assert array.shape[-1] == first + each * len(names)
            np.testing.assert_array_equal(
                array[..., :first], background[f"{layer}.{leaf}"][..., :first], err_msg=layer
            )
            for index, name in enumerate(names):
                source, at = (given, NAMES.index(name)) if name in kept else (drawn, index)
                ours, theirs = first + index * each, first + at * each
                np.testing.assert_array_equal(
                    array[..., ours : ours + each],
                    source[f"{layer}.{leaf}"][..., theirs : theirs + each],
                    err_msg=f"{layer}.{leaf}: {name}",
                )
    for name, array in found.items():
        if name.rpartition(".")[0] not in last_layers:
            np.testing.assert_array_equal(array, given[name], err_msg=name)
