"""New runs from weights files and from other runs, without compiling a model."""

import dataclasses
import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import Run, read_run, write_run
from mrcnn_jax.weights import detectron2, torchvision
from mrcnn_jax.weights.convert import SOURCES, import_weights
from mrcnn_jax.weights.export import export_torchvision
from mrcnn_jax.weights.files import read_arrays, write_arrays
from mrcnn_jax.weights.layouts import write_model

LAYOUTS = {"torchvision": torchvision.layouts, "detectron2": detectron2.layouts}
SCORES = "roi_heads.box_predictor.cls_score.bias"
DRAWN = ("box_head.cls_score", "box_head.bbox_pred", "mask_head.mask_fcn_logits")

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


def changed(config: Config, **model: object) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


@pytest.fixture
def masks_only(tiny_config: Config) -> Config:
    return changed(tiny_config, keypoint=False)


@pytest.fixture
def keypoints_only(tiny_config: Config) -> Config:
    return changed(tiny_config, mask=False)


def arrays_of(source: str, config: Config, *, classes: int, keypoints: int = 0) -> dict[str, np.ndarray]:
    """Random arrays with the source's names and shapes."""
    blueprint = make_blueprint(config.model, num_classes=classes, num_keypoints=keypoints)
    rng = np.random.default_rng(0)
    return {x.name: rng.random(x.shape, np.float32) for x in LAYOUTS[source](blueprint).values()}


@pytest.fixture
def file(tmp_path: Path, tiny_config: Config) -> Path:
    """Weights with torchvision's names, for 3 classes and 5 keypoints."""
    path = tmp_path / "weights.npz"
    write_arrays(path, arrays_of("torchvision", tiny_config, classes=3, keypoints=5))
    return path


def categories_file(path: Path, *, classes: int, keypoints: int) -> Path:
    """A COCO-format JSON with category ids 2, 4, ...; the last category has the keypoints."""
    entries: list[dict] = [{"id": 2 * i, "name": f"thing {i}"} for i in range(1, classes + 1)]
    if keypoints:
        entries[-1]["keypoints"] = [f"point {i}" for i in range(keypoints)]
    path.write_text(json.dumps({"categories": entries}))
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    return categories_file(tmp_path / "categories.json", classes=3, keypoints=5)


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


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
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


def test_categories_come_from_a_file(tmp_path: Path, tiny_config: Config, file: Path, named: Path) -> None:
    made = import_weights("torchvision", file, tiny_config, tmp_path / "run", categories=named)
    assert made.categories.ids == (2, 4, 6) and made.categories.keypoint_labels == (3,)
    assert read_run(tmp_path / "run").categories == made.categories


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


def test_mismatches_are_counted_with_examples(tmp_path: Path, masks_only: Config) -> None:
    arrays = arrays_of("torchvision", masks_only, classes=90)
    missing = [name for name in arrays if name.startswith(("backbone.body.layer3.1.", SCORES))]
    wanted = len(arrays)
    for name in missing:
        del arrays[name]
    arrays["rpn.head.cls_logits.weight"] = np.zeros((2, 16, 1, 1), np.float32)
    arrays |= {f"roi_heads.other.{i}": np.zeros(1, np.float32) for i in range(12)}
    write_arrays(tmp_path / "w.npz", arrays)
    with pytest.raises(ValueError) as error:
        import_weights("torchvision", tmp_path / "w.npz", masks_only, tmp_path / "run")
    lines = str(error.value).splitlines()
    fitting = wanted - len(missing) - 1
    assert lines[0] == f"{tmp_path}/w.npz: the arrays do not fit the model: {fitting} of its {wanted} do"
    assert lines[1].startswith(f"  {len(missing)} missing: backbone.body.layer3.1.")
    assert lines[3].strip() == f"and {len(missing) - 2} more"
    assert [line.strip() for line in lines[4:]] == [
        "12 unexpected: roi_heads.other.0",
        "roi_heads.other.1",
        "and 10 more",
        "1 of another shape: rpn.head.cls_logits.weight is (2, 16, 1, 1), must be (3, 16, 1, 1)",
        "model.backbone_depth is 18 in the config, 34 in the file",
    ][: len(lines) - 4]
    assert not (tmp_path / "run").exists()


def test_files_of_another_kind(tmp_path: Path, masks_only: Config) -> None:
    def error(source: str, arrays: dict[str, np.ndarray]) -> str:
        path = tmp_path / "w.npz"
        path.unlink(missing_ok=True)
        write_arrays(path, arrays)
        with pytest.raises(ValueError) as raised:
            import_weights(source, path, masks_only, tmp_path / "run")
        return str(raised.value).removeprefix(f"{path}: ")

    names = arrays_of("detectron2", masks_only, classes=80)
    assert error("torchvision", {f"module.{name}": array for name, array in names.items()}) == (
        "its names are not those of --source=torchvision\nthe names match --source=detectron2"
    )
    assert error("detectron2", {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}) == (
        "is not a detector of torchvision or Detectron2, by its names: conv1.weight\n"
        "to train from a backbone, use --config.model.backbone_weights=FILE"
    )
    mmdetection = {"backbone.conv1.weight": np.zeros(2), "rpn_head.rpn_conv.weight": np.zeros(2)}
    assert error("torchvision", mmdetection).splitlines() == [
        "has the names of MMDetection (rpn_head.rpn_conv.weight)",
        "convert reads only torchvision's and Detectron2's own Mask, Keypoint and Faster R-CNN on ResNets; "
        f"to use the backbone alone: --config.model.backbone_weights={tmp_path}/w.npz",
    ]
    empty = {name: np.zeros((0,), np.float32) for name in arrays_of("torchvision", masks_only, classes=90)}
    assert error("torchvision", empty).endswith("DeepSpeed ZeRO-3 checkpoint: run its zero_to_fp32.py")


@pytest.mark.parametrize("source", ["torchvision", "detectron2"])
def test_settings_that_fit_the_file(tmp_path: Path, masks_only: Config, source: str) -> None:
    write_arrays(tmp_path / "w.npz", arrays_of(source, masks_only, classes=90))
    deeper = changed(masks_only, backbone_depth=34, keypoint=True, mask=False)
    with pytest.raises(ValueError) as error:
        import_weights(source, tmp_path / "w.npz", deeper, tmp_path / "run")
    assert str(error.value).splitlines()[-4:] == [
        "model.backbone_depth is 34 in the config, 18 in the file",
        "model.mask is False in the config, True in the file",
        "model.keypoint is True in the config, False in the file",
        "to fit the file, use --config.model.backbone_depth=18 --config.model.mask=True "
        "--config.model.keypoint=False",
    ]


@pytest.fixture
def agnostic(masks_only: Config) -> Config:
    return changed(masks_only, box_agnostic=True, mask_agnostic=True)


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


def test_class_agnostic_heads_must_be_asked_for(tmp_path: Path, masks_only: Config, agnostic: Config) -> None:
    write_arrays(tmp_path / "w.npz", arrays_of("detectron2", agnostic, classes=80))
    with pytest.raises(ValueError) as error:
        import_weights("detectron2", tmp_path / "w.npz", masks_only, tmp_path / "run")
    assert str(error.value).splitlines()[-3:] == [
        "model.box_agnostic is False in the config, True in the file",
        "model.mask_agnostic is False in the config, True in the file",
        "to fit the file, use --config.model.box_agnostic=True --config.model.mask_agnostic=True",
    ]


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


@pytest.mark.parametrize(
    ("source", "changes", "problems"),
    [
        (
            "detectron2",
            {"mask_loss": "softmax", "mask_fcs": 2, "mask_convs": 0},
            ["model.mask_loss is 'softmax'; it must be 'sigmoid'", "model.mask_fcs is 2; it must be 0"],
        ),
        ("torchvision", {"mask_agnostic": True}, ["model.mask_agnostic is True; it must be False"]),
    ],
)
def test_heads_that_another_system_lacks(tmp_path, masks_only, source, changes, problems):
    write_arrays(tmp_path / "w.npz", arrays_of(source, masks_only, classes=80))
    with pytest.raises(ValueError) as error:
        import_weights(source, tmp_path / "w.npz", changed(masks_only, **changes), tmp_path / "run")
    system = {"torchvision": "torchvision", "detectron2": "Detectron2"}[source]
    assert str(error.value).splitlines() == [
        f"{system} has no such model:",
        *(f"  {problem}" for problem in problems),
    ]


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
