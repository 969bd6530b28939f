"""New runs from weights files and from other runs, without compiling a model."""

import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.config.presets import MMDETECTION_CASCADE
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import Run, read_run, write_run
from mrcnn_jax.weights import detectron2, mmdetection
from mrcnn_jax.weights.convert import SOURCES, import_weights
from mrcnn_jax.weights.export import export_torchvision
from mrcnn_jax.weights.files import read_arrays, write_arrays
from mrcnn_jax.weights.layouts import write_model
from tests.weights.examples import DRAWN, SCORES, arrays_of, categories_file, changed

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


@pytest.mark.parametrize(
    ("source", "categories"), [("torchvision", COCO_BY_ID), ("detectron2", COCO)], ids=["tv", "d2"]
)
def test_a_coco_model(tmp_path: Path, masks_only: Config, source: str, categories: Categories) -> None:
    found = arrays_of(source, masks_only, classes=len(categories))
    write_arrays(tmp_path / "w.safetensors", found)
    made = import_weights(source, tmp_path / "w.safetensors", masks_only, tmp_path / "run")
    assert (made.categories, made.new_layers) == (categories, ())
    assert read_run(tmp_path / "run") == Run(masks_only, categories)
    step, weights = load_weights(tmp_path / "run")
    assert step == 0 and made.size == sum(x.size for x in weights.values())
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["0"]
    assert not (tmp_path / "run" / "checkpoints" / "0" / "training").exists()

    background = -1 if source == "detectron2" else 0
    assert weights["box_head.cls_score.bias"][0] == found[SCORES][background]
    first = 0 if source == "detectron2" else 4  # torchvision also has boxes for the background
    np.testing.assert_array_equal(
        weights["box_head.bbox_pred.bias"], found["roi_heads.box_predictor.bbox_pred.bias"][first:]
    )


@pytest.mark.parametrize("source", ["torchvision", "detectron2"])
def test_a_keypoint_model_has_the_person_category(
    tmp_path: Path, keypoints_only: Config, source: str
) -> None:
    write_arrays(tmp_path / "w.npz", arrays_of(source, keypoints_only, classes=1, keypoints=17))
    made = import_weights(source, tmp_path / "w.npz", keypoints_only, tmp_path / "run")
    assert made.categories == COCO_PERSON


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".npz", marks=pytest.mark.slow)])
def test_import_export_import_is_bit_equal(
    tmp_path: Path, tiny_config: Config, file: Path, named: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    import_weights("torchvision", file, tiny_config, tmp_path / "run", categories=named)
    export_torchvision(tmp_path / "run", out)
    import_weights("torchvision", out, tiny_config, tmp_path / "again", categories=named)
    (_, first), (_, again) = load_weights(tmp_path / "run"), load_weights(tmp_path / "again")
    assert first.keys() == again.keys()
    for name, array in first.items():
        assert np.asarray(array).tobytes() == np.asarray(again[name]).tobytes(), name
    # All but the background's rows are as they were in the file.
    before, after = read_arrays(file), read_arrays(out)
    rows = {"roi_heads.box_predictor.bbox_pred": 4, "roi_heads.mask_predictor.mask_fcn_logits": 1}
    assert before.keys() == after.keys()
    for name, array in before.items():
        first_row = rows.get(name.rpartition(".")[0], 0)
        np.testing.assert_array_equal(after[name][first_row:], array[first_row:], err_msg=name)
        assert not after[name][:first_row].any()


def test_class_agnostic_heads_of_detectron2(tmp_path: Path, agnostic: Config) -> None:
    arrays = arrays_of("detectron2", agnostic, classes=80)
    assert arrays["roi_heads.box_predictor.bbox_pred.weight"].shape == (4, 16)
    assert arrays["roi_heads.mask_head.predictor.weight"].shape == (1, 8, 1, 1)
    write_arrays(tmp_path / "w.npz", arrays)
    import_weights("detectron2", tmp_path / "w.npz", agnostic, tmp_path / "run")
    _, weights = load_weights(tmp_path / "run")
    assert weights["box_head.cls_score.bias"].shape == (81,)
    written = write_model(weights, detectron2.layouts(make_blueprint(agnostic.model, num_classes=80)))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_a_cascade_of_mmdetection(tmp_path: Path, cascade: Config) -> None:
    """From a file in its naming, and back: three box heads and three mask heads."""
    config = changed(cascade, box_cascade=MMDETECTION_CASCADE, mask_cascade=True)
    arrays = arrays_of("mmdetection", config, classes=80)
    assert arrays["roi_head.bbox_head.2.fc_reg.weight"].shape == (4, 16)
    write_arrays(tmp_path / "w.npz", arrays | {"backbone.bn1.num_batches_tracked": np.array(7)})
    made = import_weights("mmdetection", tmp_path / "w.npz", config, tmp_path / "run")
    assert made.categories == COCO
    _, weights = load_weights(tmp_path / "run")
    found = arrays["roi_head.bbox_head.1.fc_cls.bias"]
    np.testing.assert_array_equal(weights["cascade_heads.0.cls_score.bias"], np.roll(found, 1))
    written = write_model(weights, mmdetection.layouts(make_blueprint(config.model, num_classes=80)))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    # The other categories' outputs of all mask heads are new.
    new = Categories((1, 2), ("person", "crab"))
    again = import_weights("mmdetection", tmp_path / "w.npz", config, tmp_path / "new", new_categories=new)
    assert {f"cascade_mask_heads.{number}.mask_fcn_logits" for number in (0, 1)} <= set(again.new_layers)
    with pytest.raises(ValueError, match=r"MMDetection has no such model:\n  model\.mask_cascade is False"):
        import_weights("mmdetection", tmp_path / "w.npz", cascade, tmp_path / "other")


def test_a_cascade_of_detectron2(tmp_path: Path, cascade: Config, masks_only: Config) -> None:
    arrays = arrays_of("detectron2", cascade, classes=80)
    assert arrays["roi_heads.box_predictor.2.bbox_pred.weight"].shape == (4, 16)
    write_arrays(tmp_path / "w.npz", arrays)
    made = import_weights("detectron2", tmp_path / "w.npz", cascade, tmp_path / "run")
    assert not made.new_layers
    _, weights = load_weights(tmp_path / "run")
    written = write_model(weights, detectron2.layouts(make_blueprint(cascade.model, num_classes=80)))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    plain = changed(masks_only, box_agnostic=False)
    with pytest.raises(ValueError, match=r"model.box_cascade is \(\) in the config, \(\(20.0, ") as error:
        import_weights("detectron2", tmp_path / "w.npz", plain, tmp_path / "other")
    assert "'--config.train.cascade_positive_ious=(0.6, 0.7)'" in str(error.value)


def test_a_training_checkpoint(tmp_path: Path, masks_only: Config) -> None:
    arrays = arrays_of("detectron2", masks_only, classes=80)
    other = {name: array + 1 for name, array in arrays.items()}
    content = {
        "model": {f"module.{name}": array for name, array in arrays.items()},
        "ema": {"module": other},
        "optimizer": {"lr": 0.1},
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"model\.pkl: .*'model\.module', 'ema\.module'; choose one"):
        import_weights("detectron2", path, masks_only, tmp_path / "run")
    made = import_weights("detectron2", path, masks_only, tmp_path / "run", key="ema")
    assert made.place == "ema.module"
    _, weights = load_weights(tmp_path / "run")
    np.testing.assert_array_equal(weights["box_head.cls_score.bias"], np.roll(other[SCORES], 1))


def test_nothing_is_replaced(tmp_path: Path, tiny_config: Config, file: Path, named: Path) -> None:
    run = tmp_path / "run"
    import_weights("torchvision", file, tiny_config, run, categories=named)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ValueError, match=r"run already exists; .* new or empty"):
        import_weights("torchvision", file, tiny_config, run, categories=named)
    with pytest.raises(ValueError, match=r"weights\.npz already exists"):
        import_weights("torchvision", file, tiny_config, file, categories=named)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (tmp_path / "empty").mkdir()
    import_weights("torchvision", file, tiny_config, tmp_path / "empty", categories=named)


class TestAnotherRun:
    @pytest.fixture
    def run(self, tmp_path: Path, tiny_config: Config, tiny_weights: dict[str, jax.Array]) -> Path:
        categories = Categories(
            ids=(1, 2, 3, 4), names=tuple("abcd"), keypoint_labels=(1,), keypoint_names=tuple("rstuvwxyz")
        )
        write_run(tmp_path / "trained", tiny_config, categories)
        with Checkpoints(tmp_path / "trained", keep=2) as checkpoints:
            checkpoints.save(5, tiny_weights, {"step": jnp.int32(5)})
            checkpoints.save(6, {name: x + 1 for name, x in tiny_weights.items()}, {"step": jnp.int32(6)})
        return tmp_path / "trained"

    def test_its_weights_and_categories(self, tmp_path, tiny_config, tiny_weights, run):
        config = changed(tiny_config, backbone_frozen_stages=0, dtype="bfloat16")
        import_weights("run", run, config, tmp_path / "new", step=5)
        assert read_run(tmp_path / "new") == Run(config, read_run(run).categories)
        step, weights = load_weights(tmp_path / "new")
        assert step == 0
        for name, array in tiny_weights.items():
            np.testing.assert_array_equal(weights[name], array, err_msg=name)

    def test_its_newest_checkpoint_with_new_categories(self, tmp_path, tiny_config, tiny_weights, run):
        new = categories_file(tmp_path / "new.json", classes=2, keypoints=9)
        made = import_weights("run", run, tiny_config, tmp_path / "new", new_categories=new)
        assert made.new_layers == DRAWN
        _, weights = load_weights(tmp_path / "new")
        assert weights["box_head.cls_score.bias"].shape == (3,)
        np.testing.assert_array_equal(
            weights["backbone.conv1.kernel"], tiny_weights["backbone.conv1.kernel"] + 1
        )

    def test_of_another_model(self, tmp_path, tiny_config, run):
        config = changed(tiny_config, roi_aligned=False, mask_channels=16)
        with pytest.raises(ValueError) as error:
            import_weights("run", run, config, tmp_path / "new")
        assert str(error.value).splitlines() == [
            f"{run} is a run of a different model:",
            "  model.roi_aligned: False in the config, True in the run",
            "  model.mask_channels: 16 in the config, 8 in the run",
        ]
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("run", {"key": "ema"}, "--key selects weights in a file"),
        ("torchvision", {"step": 3}, "--step selects a checkpoint of another run"),
        ("run", {"categories": "a.json"}, "--categories names what a weights file was trained on"),
    ],
)
def test_options_that_conflict(tmp_path, tiny_config, file, source, options, message):
    assert source in SOURCES
    with pytest.raises(ValueError, match=message):
        import_weights(source, file, tiny_config, tmp_path / "run", **options)
