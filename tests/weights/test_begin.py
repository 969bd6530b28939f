"""A run that begins from another one's weights, for its own data."""

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


def test_last_layers_are_new_for_other_categories(earlier, tiny_config, tmp_path):
    begun = begin_run(str(earlier), tiny_config, tmp_path / "run", categories("cat", "dog", "cow"))
    assert begun.new_layers == ("box_head.cls_score", "box_head.bbox_pred", "mask_head.mask_fcn_logits")
    assert read_run(tmp_path / "run").categories.names == ("cat", "dog", "cow")
    (_, found), (_, given) = load_weights(tmp_path / "run"), load_weights(earlier)
    np.testing.assert_array_equal(found["box_head.fcs.0.kernel"], given["box_head.fcs.0.kernel"])
    assert len(found["box_head.cls_score.bias"]) == 4
