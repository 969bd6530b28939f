"""A run that begins from another one's weights, for its own data."""

import dataclasses
import json

import numpy as np
import pytest

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
    categories = Categories((1, 2, 3, 4), NAMES, keypoint_labels=(4,), keypoint_names=KEYPOINTS)
    write_run(path, tiny_config, categories)
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(0, tiny_weights)
    return path


@pytest.fixture
def config(tiny_config, tmp_path):
    data = dataclasses.replace(tiny_config.data, root=str(tmp_path), train_annotations="objects.json")
    return dataclasses.replace(tiny_config, data=data)


def write_categories(tmp_path, *names):
    entries = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    entries[-1]["keypoints"] = list(KEYPOINTS)
    (tmp_path / "objects.json").write_text(json.dumps({"categories": entries}))


def test_all_layers_are_kept_for_the_same_categories(earlier, config, tmp_path):
    write_categories(tmp_path, *NAMES)
    assert begin_run(earlier, config, tmp_path / "run").new_layers == ()
    (_, found), (_, given) = load_weights(tmp_path / "run"), load_weights(earlier)
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_last_layers_are_new_for_other_categories(earlier, config, tmp_path):
    write_categories(tmp_path, "cat", "dog", "cow")
    begun = begin_run(str(earlier), config, tmp_path / "run")
    assert begun.new_layers == ("box_head.cls_score", "box_head.bbox_pred", "mask_head.mask_fcn_logits")
    assert read_run(tmp_path / "run").categories.names == ("cat", "dog", "cow")
    (_, found), (_, given) = load_weights(tmp_path / "run"), load_weights(earlier)
    np.testing.assert_array_equal(found["box_head.fcs.0.kernel"], given["box_head.fcs.0.kernel"])
    assert len(found["box_head.cls_score.bias"]) == 4


def test_a_file_is_a_backbone_or_needs_convert(config, tmp_path):
    file = tmp_path / "resnet50.npz"
    file.touch()
    with pytest.raises(
        ValueError, match=r"resnet50.npz: is a file, .* --config.model.backbone_weights="
    ) as e:
        begin_run(file, config, tmp_path / "run")
    assert str(e.value).endswith("a detector's become a run with mrcnn-jax convert")
    assert not (tmp_path / "run").exists()


def test_records_need_convert(earlier, config, tmp_path):
    config.data.train_records = "records"
    with pytest.raises(
        ValueError, match=r"make the run with mrcnn-jax convert --source=run --new_categories"
    ):
        begin_run(earlier, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
