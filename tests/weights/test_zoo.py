"""Published models by name, from a folder of files instead of the web."""

import dataclasses
import errno
import fcntl
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

import mrcnn_jax
from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.data.coco_categories import COCO
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.runs.checkpoint import load_weights
from mrcnn_jax.runs.description import read_run, write_run
from mrcnn_jax.training.loop import train
from mrcnn_jax.weights import torchvision, zoo, zoo_models
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.download import cache_path
from mrcnn_jax.weights.files import read_arrays, write_arrays
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, Model, Weights, config_of
from mrcnn_jax.weights.zoo_table import backbone_table, model_table
from tests.run_command import run_here

ROOT = Path(__file__).parents[2]
NAME = "torchvision/tiny"


@pytest.fixture
def tiny(tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of the table, whose weights are in the cache as if downloaded, with no server behind it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo_models, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs" / "torchvision").mkdir(parents=True)
    write_config(tmp_path, tiny_config)
    model = Model(NAME, "http://127.0.0.1:1/tiny.npz", None, NAME, (1.0,), {"keypoint": False})
    monkeypatch.setitem(MODELS, NAME, model)
    blueprint = make_blueprint(config_of(model).model, num_classes=90, num_keypoints=0)
    rng = np.random.default_rng(0)
    arrays = {x.name: rng.random(x.shape, np.float32) for x in torchvision.layouts(blueprint).values()}
    cache_path(model).parent.mkdir(parents=True)
    write_arrays(cache_path(model), arrays)
    return model


def write_config(directory: Path, config: Config) -> None:
    code = "from mrcnn_jax.config.io import from_dict\n"
    code += f"def get_config(): return from_dict({to_dict(config)!r})\n"
    (directory / "configs" / "torchvision" / "tiny.py").write_text(code)


def test_a_model_is_converted_once(tmp_path: Path, tiny: Model, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = zoo.workdir_of(NAME)
    assert capsys.readouterr() == ("", f"converting tiny.npz to a run in {workdir}\n")
    assert workdir == tmp_path / ".cache" / "mrcnn_jax" / "zoo" / NAME
    run = read_run(workdir)
    assert run.config == config_of(tiny) and not run.config.model.keypoint and len(run.categories) == 90
    step, weights = load_weights(workdir)
    assert step == 0 and weights["box_head.cls_score.bias"].shape == (91,)
    assert [path.name for path in workdir.parent.iterdir()] == ["tiny"]
    cache_path(tiny).unlink()  # the file is not needed any more
    assert zoo.workdir_of(NAME) == workdir
    assert capsys.readouterr() == ("", "")


def test_a_run_of_other_settings_is_converted_again(tmp_path: Path, tiny: Model, tiny_config: Config) -> None:
    workdir = zoo.workdir_of(NAME)
    test = dataclasses.replace(tiny_config.test, detections=3)
    write_config(tmp_path, dataclasses.replace(tiny_config, test=test))
    assert zoo.workdir_of(NAME) == workdir
    assert read_run(workdir).config.test.detections == 3
    (workdir / "config.json").write_text("{")
    zoo.workdir_of(NAME)
    assert read_run(workdir).config.test.detections == 3
    assert [path.name for path in workdir.parent.iterdir()] == ["tiny"]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, tiny: Model) -> None:
    cache_path(tiny).write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"tiny\.npz: cannot be read"):
        zoo.workdir_of(NAME)
    assert not any((tmp_path / ".cache" / "mrcnn_jax" / "zoo" / "torchvision").iterdir())
    cache_path(tiny).unlink()
    with pytest.raises(OSError, match=r"tiny\.npz: cannot be downloaded"):
        zoo.workdir_of(NAME)


def test_what_a_killed_process_left_is_removed(tmp_path: Path, tiny: Model) -> None:
    left = tmp_path / ".cache" / "mrcnn_jax" / "zoo" / "torchvision" / ".tiny.k1ll3d.part"
    (left / "run").mkdir(parents=True)
    (left / "run" / "config.json").write_text("{}")
    workdir = zoo.workdir_of(NAME)
    assert [path.name for path in workdir.parent.iterdir()] == ["tiny"]


def test_processes_that_want_the_same_model(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    convert: Callable = zoo.import_weights
    converted = []

    def count(*arguments: object) -> None:
        converted.append(arguments)
        convert(*arguments)

    monkeypatch.setattr(zoo, "import_weights", count)
    with ThreadPoolExecutor() as pool:  # locks are held by open files, not by processes
        assert len(set(pool.map(zoo.workdir_of, [NAME] * 3))) == 1
    assert len(converted) == 1


def test_a_run_that_another_process_made_meanwhile(tmp_path: Path, tiny: Model, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    convert: Callable = zoo.import_weights

    def convert_late(*arguments: object) -> None:
        convert(*arguments)
        monkeypatch.setattr(zoo, "import_weights", convert)
        zoo.workdir_of(NAME)

    monkeypatch.setattr(zoo, "import_weights", convert_late)
    workdir = zoo.workdir_of(NAME)
    assert read_run(workdir).config == config_of(tiny)
    assert [path.name for path in workdir.parent.iterdir()] == ["tiny"]


def test_a_path_is_returned_as_it_is(tmp_path: Path, tiny: Model) -> None:
    assert zoo.workdir_of("runs/none") == Path("runs/none")
    (tmp_path / NAME).mkdir(parents=True)
    assert zoo.workdir_of(NAME) == Path(NAME)
    assert zoo.file_of("torchvision/none.pth") == Path("torchvision/none.pth")


def test_a_name_that_is_almost_right(tiny: Model) -> None:
    with pytest.raises(
        ValueError, match=r"^torchvision/tinny: there is no .*; did you mean torchvision/tiny"
    ):
        zoo.workdir_of("torchvision/tinny")
    with pytest.raises(
        ValueError, match=r"no published model is called detectron2/1\d+; mrcnn-jax zoo lists them$"
    ):
        zoo.workdir_of("detectron2/12345678901234567890")


def test_the_file_of_a_model(tiny: Model) -> None:
    assert zoo.file_of(NAME) == cache_path(tiny)


def test_load_takes_a_name(tiny: Model) -> None:
    detector = mrcnn_jax.load(NAME)
    assert detector.step == 0 and len(detector.categories) == 90
    with pytest.raises(ValueError, match="did you mean torchvision/tiny"):
        mrcnn_jax.load("torchvision/tinny")


def test_evaluate_takes_a_name(tiny: Model) -> None:
    class Photos(list):
        categories = ("cat",)

    with pytest.raises(ValueError, match=r"(?s)Photos.*categor"):  # after the model was found
        mrcnn_jax.evaluate(NAME, Photos())


def test_a_model_is_exported_by_name(tmp_path: Path, tiny: Model) -> None:
    export = ("convert", "--target=torchvision", "--workdir=torchvision/tiny")
    (tmp_path / "taken.npz").write_text("mine")
    for output, problem in (("taken.npz", "already exists"), ("a/b.npz", "there is no folder a")):
        done = run_here(*export, f"--output={output}", directory=tmp_path)
        assert done.returncode == 1 and f"error: {output}: {problem}" in done.stderr
        assert not (tmp_path / ".cache" / "mrcnn_jax" / "zoo").exists()  # told before the conversion
    done = run_here(*export, "--output=out.npz", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    found, wanted = read_arrays(tmp_path / "out.npz"), read_arrays(cache_path(tiny))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        # The background's boxes and mask are never used, and zeros here.
        first = {"bbox_pred": 4, "mask_fcn_logits": 1}.get(name.split(".")[-2], 0)
        np.testing.assert_array_equal(found[name][first:], array[first:], err_msg=name)


def test_a_model_that_torchvision_lacks_is_not_downloaded(tmp_path: Path) -> None:
    name = "detectron2/mask_rcnn_r50_fpn_3x"
    done = run_here(
        "convert", "--target=torchvision", f"--workdir={name}", "--output=a.npz", directory=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: torchvision has no such model:\n  model.backbone_stride_in_1x1 is True; torchvision has"
    )


def test_the_evaluation_of_a_model_needs_an_output(tmp_path: Path, tiny: Model) -> None:
    done = run_here("evaluate", "--workdir=torchvision/tiny", directory=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --output is missing: torchvision/tiny is a published model")
    done = run_here("evaluate", "--workdir=torchvision/tinny", directory=tmp_path)
    assert done.stderr.startswith("error: torchvision/tinny: there is no such file or directory")
    assert not (tmp_path / ".cache" / "mrcnn_jax" / "zoo").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source=torchvision",), f"--config is missing; for {NAME} it is --config={NAME} --config.model."),
        (("--source=run",), f"--config is missing; for {NAME} it is --config={NAME} --config.model.keypoint"),
        (("--source=detectron2",), f"--source=detectron2: {NAME} is one of torchvision's models"),
    ],
)
def test_flags_that_do_not_fit_the_model(
    tmp_path: Path, tiny: Model, arguments: tuple[str, ...], message: str
) -> None:
    done = run_here("convert", *arguments, f"--input={NAME}", "--workdir=run", directory=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}")


def test_a_new_run_does_not_take_a_models_name(tmp_path: Path, tiny: Model, tiny_config: Config) -> None:
    begin = f"{NAME} is a published model's name: .*; to begin from the model, train with --init={NAME}"
    with pytest.raises(ValueError, match=begin):
        train(tiny_config, NAME)
    with pytest.raises(ValueError, match=begin):
        import_weights("torchvision", cache_path(tiny), config_of(tiny), NAME)
    assert not (tmp_path / "torchvision").exists()
    # A directory that has the name already is the user's, and a name that no model has is free.
    (tmp_path / NAME).mkdir(parents=True)
    import_weights("torchvision", cache_path(tiny), config_of(tiny), NAME)
    import_weights("torchvision", cache_path(tiny), config_of(tiny), "torchvision/tinny")
    assert read_run(tmp_path / NAME).config == read_run(tmp_path / "torchvision" / "tinny").config


def test_the_table_by_hand() -> None:
    model = MODELS["detectron2/mask_rcnn_r101_fpn_lsj_200ep"]
    assert model.address == (
        "https://dl.fbaipublicfiles.com/detectron2/new_baselines/mask_rcnn_R_101_FPN_200ep_LSJ/"
        "42131867/model_final_0bb7ae.pkl"
    )
    assert (model.file, model.checksum) == ("model_final_0bb7ae.pkl", ("md5", "0bb7ae"))
    assert model.arguments == (
        "--config=detectron2/mask_rcnn_r50_fpn_lsj_100ep --config.model.backbone_depth=101"
    )
    model = MODELS["mmdetection/mask_rcnn_r50_caffe_fpn_1x"]
    assert model.file.endswith("_bbox_mAP-0.38__segm_mAP-0.344_20200504_231812-0ebd1859.pth")
    assert model.checksum == ("sha256", "0ebd1859")
    model = MODELS["torchvision/mask_rcnn_r50_fpn"]
    assert (model.checksum, model.mib) == (("sha256", "bf2d0c1e"), 169.84)
    backbone = BACKBONES["detectron2/MSRA/R-50"]
    assert (backbone.file, backbone.checksum) == ("MSRA_R-50.pkl", None)


def test_the_table_is_consistent() -> None:
    entries: list[Weights] = [*MODELS.values(), *BACKBONES.values()]
    assert len({entry.name for entry in entries}) == len(entries) == len(MODELS) + len(BACKBONES)
    assert len({entry.address for entry in entries}) == len(entries)
    assert len({cache_path(entry) for entry in entries}) == len(entries)
    for entry in entries:
        assert urlparse(entry.address).scheme == "https"
        assert re.fullmatch(r"(torchvision|detectron2|mmdetection|pycls)/[\w/-]+", entry.name)
        assert entry.checksum or "ImageNetPretrained" in entry.address or entry.system == "pycls"
        assert (entry.mib is None) == (entry.system != "torchvision")


@pytest.mark.parametrize("name", MODELS)
def test_configs_of_the_table(name: str) -> None:
    """The config is that of the name: depth, features, heads, and the batch norm's epsilon."""
    model = MODELS[name]
    config = config_of(model).model
    assert model.config.startswith(f"{model.system}/")
    features = re.search(r"_(fpn|c4|dc5|vitdet)", name)[1]
    assert config.features == features.replace("vitdet", "fpn")
    other = re.search(r"regnet[xy]_4gf|(?<=vitdet_)[blh]|(swin|convnext)-[ts]", name)
    if other:
        backbone = other[0].replace("-", "_")
        assert config.backbone in (backbone, f"vit_{backbone}")
    else:
        assert config.backbone == "resnet"
        assert config.backbone_depth == int(re.search(r"_[rx](\d+)", name)[1])
    groups = re.search(r"x1\d\d_(\d+)x(\d)d", name)
    assert config.backbone_groups == (int(groups[1]) if groups else 1)
    assert config.backbone_group_width == (int(groups[2]) if groups else 64)
    plain = not re.search(r"x1\d\d|_gn$|_9x_", name) and not other
    in_1x1 = (model.system == "detectron2" and plain) or "caffe" in name
    assert config.backbone_stride_in_1x1 == in_1x1
    assert config.mask == ("mask_rcnn" in name) and config.keypoint == ("/keypoint_rcnn" in name)
    assert config.box == ("/rpn_" not in name) and config.rpn == ("/fast_rcnn" not in name)
    assert [value is not None for value in (*model.ap, None, None)][:3] == [
        config.box,
        config.mask,
        config.keypoint,
    ]
    with_zero = (
        "torchvision/mask_rcnn_r50_fpn",
        "torchvision/keypoint_rcnn_r50_fpn",
        "torchvision/faster_rcnn_r50_fpn",
    )
    assert config.backbone_norm_epsilon == (0.0 if name in with_zero else 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_run_is_recognised(tmp_path: Path, name: str) -> None:
    config = config_of(MODELS[name])
    write_run(tmp_path, config, COCO)
    assert zoo._is_converted(tmp_path, config)


def test_every_config_has_a_model() -> None:
    configs = {
        path.relative_to(zoo_models.CONFIGS).with_suffix("").as_posix()
        for system in ("torchvision", "detectron2", "mmdetection")
        for path in (zoo_models.CONFIGS / system).glob("*.py")
    }
    assert {model.config for model in MODELS.values()} == configs
    assert configs <= set(MODELS)


def test_the_documentation_has_the_tables() -> None:
    """``python -m mrcnn_jax.weights.zoo_table`` prints them anew."""
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?m)^\| name .*(?:\n\|.*)*", text)
    assert tables == [model_table(), backbone_table()]
