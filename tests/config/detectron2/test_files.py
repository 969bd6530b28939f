"""Reading a YAML file of Detectron2, and the files that it is based on."""

import dataclasses

import pytest
import yaml

from mrcnn_jax.config import Config, presets
from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.detectron2.convert import to_config
from mrcnn_jax.config.detectron2.defaults import DEFAULTS, OTHER_ARCHITECTURES, flatten
from mrcnn_jax.config.detectron2.files import read_settings
from mrcnn_jax.config.detectron2.get_config import get_config
from mrcnn_jax.config.io import validate


def test_a_file_and_its_base(write):
    write(
        """
        MODEL: {MASK_ON: True, RESNETS: {DEPTH: 101, STRIDE_IN_1X1: False}}
        SOLVER: {STEPS: "(60, 80)", MAX_ITER: 90, BASE_LR: 1e-3}
        """,
        "base.yaml",
    )
    config = read_config(
        write(
            """
            _BASE_: base.yaml
            MODEL: {RESNETS: {DEPTH: 50}}
            INPUT: {MIN_SIZE_TRAIN: 600, RANDOM_FLIP: none}
            SOLVER: {STEPS: [70, 80]}
            """
        )
    )
    assert config.model.features == "c4"  # as without a file
    assert config.model.mask
    assert (config.model.backbone_depth, config.model.backbone_stride_in_1x1) == (50, False)
    assert (config.train.decay_steps, config.train.steps) == ((70, 80), 90)
    assert config.train.learning_rate == 0.001  # text, for YAML
    assert (config.data.train_short_sides, config.data.flip) == ((600,), False)
    validate(config)


def test_the_defaults_are_those_of_detectron2(fixture):
    theirs = {
        key: _tuples(value)
        for key, value in flatten(fixture["defaults"]).items()
        if not key.startswith(OTHER_ARCHITECTURES)
    }
    assert theirs == DEFAULTS


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def test_a_file_with_all_keys_as_detectron2_writes_it(fixture, write):
    """``config.yaml`` in the directory of one of its runs."""
    assert read_config(write(yaml.safe_dump(fixture["defaults"]))) == to_config(DEFAULTS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "MODEL: {RPN: {NMS_TRESH: .7}}",
            "MODEL.RPN.NMS_TRESH is no key of Detectron2; MODEL.RPN.NMS_THRESH is",
        ),
        ("names: [cat]", "names is no key of Detectron2"),
        ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON is 1; must be of the type of its default, False"),
        ("SOLVER: {MAX_ITER: 9.5}", "SOLVER.MAX_ITER is 9.5; must be of the type of its default, 40000"),
        ("SOLVER: {WEIGHT_DECAY_BIAS: text}", "SOLVER.WEIGHT_DECAY_BIAS is 'text'; must be of the type"),
        ("INPUT: {MIN_SIZE_TRAIN: [640, large]}", "INPUT.MIN_SIZE_TRAIN is (640, 'large'); must be of the"),
        ("DATASETS: {TRAIN: [1]}", "DATASETS.TRAIN is (1,); must be of the type of its default, ()"),
        ("- MODEL", "has no settings of Detectron2, such as MODEL and SOLVER"),
        ("1: 2", "has no settings of Detectron2"),
        ("", "has no settings of Detectron2"),
        ("MODEL: {", "not valid YAML"),
        ("MODEL: &a [1]\nSOLVER: *a", "not valid YAML: must not have aliases"),
        ("[" * 1000, "not valid YAML"),
        ("[" * 100_000, "not valid YAML: must not have more than 1000 brackets"),
        (
            "OUTPUT_DIR: !!python/object/apply:os.getcwd []",
            "not valid YAML: could not determine a constructor",
        ),
        ("_BASE_: config.yaml", "_BASE_ leads back to this file"),
        ("_BASE_: https://example.org/base.yaml", "must be the path of a file on this machine"),
        ("_BASE_: [a.yaml, b.yaml]", "must be the path of a file on this machine"),
        (f"# {'x' * 1_000_000}", "a file of settings has at most 1000000"),
    ],
)
def test_files_that_are_refused(write, text, problem):
    path = write(text)
    with pytest.raises(ValueError) as error:
        read_settings(path)
    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)


def test_binary_files_and_folders_are_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.yaml: not valid YAML"):
        read_settings(tmp_path / "binary.yaml")
    with pytest.raises(ValueError, match="not a regular file"):
        read_settings(tmp_path)


def test_text_is_not_evaluated(write):
    """As Detectron2 does, text is read as a literal of Python, which no call is."""
    assert read_settings(write("OUTPUT_DIR: __import__('os').getcwd()"))["OUTPUT_DIR"].startswith(
        "__import__"
    )


def test_the_words_after_a_file(zoo, write):
    path = zoo / "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    config = get_config(f"{path}:inference")
    assert isinstance(config, Config)
    assert config.test.detections == 300
    assert dataclasses.replace(config.test, detections=100, score_threshold=0.05) == presets.detectron2().test
    with pytest.raises(ValueError, match="must be 'inference', or nothing"):
        get_config(f"{path}:training")
    plain = write("MODEL: {MASK_ON: True}", "with:colon.yaml")
    assert get_config(str(plain)).model.mask
    with pytest.raises(ValueError, match=r"none\.yaml: No such file"):
        get_config(str(write("_BASE_: none.yaml")))
