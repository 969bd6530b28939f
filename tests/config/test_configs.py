"""The configs that come with the package: each loads, is valid and makes a model."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from mrcnn_jax.commands import COMMANDS
from mrcnn_jax.config import Config
from mrcnn_jax.config.io import differences, validate
from mrcnn_jax.data.pipeline import training_canvas
from mrcnn_jax.models.variables import make_blueprint

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "configs").rglob("*.py"))
# With the words that a file's get_config takes besides its default: --config=configs/balloon.py:torchvision
TORCHVISION = [
    ROOT / "configs" / "torchvision" / f"{name}.py"
    for name in ("faster_rcnn_r50_fpn", "mask_rcnn_r50_fpn", "mask_rcnn_r50_fpn_v2")
]
VARIANTS = [
    *((path, ()) for path in PATHS),
    (ROOT / "configs" / "balloon.py", ("torchvision",)),
    (ROOT / "configs" / "cityscapes.py", ("coco",)),
    *((ROOT / "configs" / f"{name}.py", ("s",)) for name in ("convnext", "swin")),
    *((path, (word,)) for path in TORCHVISION for word in ("hflip", "multiscale", "lsj")),
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "configs").with_suffix("").as_posix()


def load(path: Path, *words: str) -> Config:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*words)


@pytest.mark.parametrize(
    ("path", "words"), VARIANTS, ids=[":".join([name_of(path), *words]) for path, words in VARIANTS]
)
@pytest.mark.parametrize("makes_a_model", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_config_is_valid(path: Path, words: tuple[str, ...], makes_a_model: bool) -> None:
    config = load(path, *words)
    assert isinstance(config, Config)
    validate(config)
    if makes_a_model:
        blueprint = make_blueprint(config.model, num_classes=3, num_keypoints=5)
        assert blueprint.config == config.model


def test_sizes_that_there_are() -> None:
    with pytest.raises(
        ValueError, match="backbone is 'swin_x'; it must be one of convnext_t, convnext_s, sw"
    ):
        load(ROOT / "configs" / "swin.py", "x")


def test_a_word_makes_a_difference() -> None:
    balloon = ROOT / "configs" / "balloon.py"
    assert load(balloon, "torchvision").model != load(balloon).model
    assert load(balloon).data == load(balloon, "torchvision").data


@pytest.mark.parametrize("path", TORCHVISION, ids=name_of)
def test_augmentations_of_torchvision_change_the_data_alone(path: Path) -> None:
    plain = load(path)
    assert load(path, "hflip") == plain
    multiscale = differences(load(path, "multiscale"), plain)
    assert {name: here for name, (here, _) in multiscale.items()} == {
        "data.train_short_sides": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    }
    jittered = load(path, "lsj")
    assert set(differences(jittered, plain)) == {"data.scale_jitter", "data.canvases"}
    assert training_canvas((480, 640), jittered.data) == (1024, 1024)
    with pytest.raises(ValueError, match="augmentation is 'ssd'; it must be 'hflip', 'multiscale' or 'lsj'"):
        load(path, "ssd")


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_the_docstring_names_a_command_with_the_config(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    named = re.findall(r"mrcnn-jax (\w+)\s.*?--config=([^\s:]+)", docstring)
    assert path.relative_to(ROOT / "configs").with_suffix("").as_posix() in {config for _, config in named}
    for command, config in named:
        assert command in COMMANDS and (ROOT / "configs" / f"{config}.py").is_file()
