"""The categories of new runs: those of the weights, or new ones."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID
from mrcnn_jax.data.lvis_categories import LVIS
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import load_weights
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.files import write_arrays
from tests.weights.examples import DRAWN, arrays_of, categories_file

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


def test_categories_come_from_a_file(tmp_path: Path, tiny_config: Config, file: Path, named: Path) -> None:
    made = import_weights("torchvision", file, tiny_config, tmp_path / "run", categories=named)
    assert made.categories.ids == (2, 4, 6) and made.categories.keypoint_labels == (3,)
    assert read_run(tmp_path / "run").categories == made.categories


def test_1203_categories_are_those_of_lvis(tmp_path: Path, masks_only: Config) -> None:
    write_arrays(tmp_path / "w.npz", arrays_of("detectron2", masks_only, classes=1203))
    made = import_weights("detectron2", tmp_path / "w.npz", masks_only, tmp_path / "run")
    assert made.categories == read_run(tmp_path / "run").categories == LVIS


def test_categories_that_do_not_fit(tmp_path: Path, tiny_config: Config, file: Path) -> None:
    with pytest.raises(ValueError) as error:
        import_weights("torchvision", file, tiny_config, tmp_path / "run")
    assert str(error.value).splitlines()[:2] == [
        f"{file} has 3 classes, but COCO has 1 categories",
        f"{file} has 5 keypoints, but COCO has 17 keypoints",
    ]
    assert "--categories=FILE" in str(error.value) and "--new_categories=FILE" in str(error.value)
    other = categories_file(tmp_path / "other.json", classes=4, keypoints=5)
    with pytest.raises(
        ValueError, match=r"has 3 classes, but \S+other\.json has 4 categories\ngive the categories"
    ):
        import_weights("torchvision", file, tiny_config, tmp_path / "run", categories=other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("classes", "keypoints"), [(3, 5), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_new_categories(
    tmp_path: Path, tiny_config: Config, file: Path, named: Path, classes: int, keypoints: int
) -> None:
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, seed=3))
    import_weights("torchvision", file, config, tmp_path / "run", categories=named)
    _, before = load_weights(tmp_path / "run")
    new = categories_file(tmp_path / "new.json", classes=classes, keypoints=keypoints)
    made = import_weights("torchvision", file, config, tmp_path / "new", new_categories=new)
    _, after = load_weights(tmp_path / "new")

    assert len(made.categories) == classes == len(read_run(tmp_path / "new").categories)
    assert made.new_layers == DRAWN + (("keypoint_head.kps_score_lowres",) if keypoints != 5 else ())
    blueprint = make_blueprint(config.model, num_classes=classes, num_keypoints=keypoints)
    drawn = blueprint.draw(jax.random.key(3))
    for name, array in after.items():
        wanted = drawn if name.rpartition(".")[0] in made.new_layers else before
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)
    assert after.keys() == drawn.keys()


@pytest.mark.parametrize("source", ["torchvision", "detectron2"])
def test_a_coco_model_keeps_the_categories_of_the_same_name(
    tmp_path: Path, masks_only: Config, source: str
) -> None:
    """Cityscapes' eight from COCO's (paper, appendix A): all but the rider's outputs are in the file."""
    known = {"torchvision": COCO_BY_ID, "detectron2": COCO}[source]
    arrays = arrays_of(source, masks_only, classes=len(known))
    write_arrays(tmp_path / "w.npz", arrays)
    names = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    new = Categories((24, 25, 26, 27, 28, 31, 32, 33), names)
    made = import_weights(source, tmp_path / "w.npz", masks_only, tmp_path / "run", new_categories=new)
    assert made.kept_names == tuple(name for name in names if name != "rider")
    assert made.new_layers == DRAWN and made.categories == new
    _, weights = load_weights(tmp_path / "run")

    # torch's arrays have an output per row: torchvision the background's first, for boxes and masks too, and
    # Detectron2 the background's last, of the scores only.
    before = 1 if source == "torchvision" else 0
    boxes = arrays["roi_heads.box_predictor.bbox_pred.weight"].reshape(before + len(known), 4, -1)
    scores = arrays["roi_heads.box_predictor.cls_score.weight"]
    mask_name = "mask_predictor.mask_fcn_logits" if source == "torchvision" else "mask_head.predictor"
    masks = arrays[f"roi_heads.{mask_name}.weight"]
    ours = weights["box_head.cls_score.kernel"].T
    np.testing.assert_array_equal(ours[0], scores[0 if source == "torchvision" else -1])
    for index, name in enumerate(names):
        if name == "rider":
            continue
        row = before + known.names.index(name)
        np.testing.assert_array_equal(ours[1 + index], scores[row], err_msg=name)
        box = weights["box_head.bbox_pred.kernel"][:, 4 * index : 4 * index + 4].T
        np.testing.assert_array_equal(box, boxes[row], err_msg=name)
        mask = weights["mask_head.mask_fcn_logits.kernel"][..., index]
        np.testing.assert_array_equal(mask.ravel(), masks[row].ravel(), err_msg=name)
    assert np.abs(ours[2]).max() < 0.1 < np.abs(ours[1]).max()  # drawn with a deviation of 0.01; uniform


def test_new_categories_by_the_names_of_a_weights_file(
    tmp_path: Path, tiny_config: Config, file: Path, named: Path
) -> None:
    new = categories_file(tmp_path / "new.json", classes=4, keypoints=5)  # one more than the file has
    unnamed = import_weights("torchvision", file, tiny_config, tmp_path / "a", new_categories=new)
    assert unnamed.kept_names == ()
    made = import_weights(
        "torchvision", file, tiny_config, tmp_path / "b", categories=named, new_categories=new
    )
    assert made.kept_names == ("thing 1", "thing 2", "thing 3")
    other = categories_file(tmp_path / "other.json", classes=2, keypoints=5)
    with pytest.raises(ValueError, match=r"has 3 classes, but \S+other\.json has 2 categories"):
        import_weights("torchvision", file, tiny_config, tmp_path / "c", categories=other, new_categories=new)


def test_new_categories_need_the_models_keypoints(tmp_path: Path, tiny_config: Config, file: Path) -> None:
    new = categories_file(tmp_path / "new.json", classes=2, keypoints=0)
    with pytest.raises(ValueError, match=r"new\.json: no category has keypoints, but model\.keypoint is"):
        import_weights("torchvision", file, tiny_config, tmp_path / "run", new_categories=new)
    assert not (tmp_path / "run").exists()


def test_class_agnostic_layers_are_kept_for_new_categories(tmp_path: Path, agnostic: Config) -> None:
    arrays = arrays_of("detectron2", agnostic, classes=80)
    write_arrays(tmp_path / "w.npz", arrays)
    new = categories_file(tmp_path / "new.json", classes=2, keypoints=0)
    made = import_weights("detectron2", tmp_path / "w.npz", agnostic, tmp_path / "run", new_categories=new)
    assert made.new_layers == ("box_head.cls_score",)
    _, weights = load_weights(tmp_path / "run")
    for name, theirs in (
        ("box_head.bbox_pred.bias", "roi_heads.box_predictor.bbox_pred.bias"),
        ("mask_head.mask_fcn_logits.bias", "roi_heads.mask_head.predictor.bias"),
    ):
        np.testing.assert_array_equal(weights[name], arrays[theirs])
