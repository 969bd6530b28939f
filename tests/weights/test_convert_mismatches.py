"""What is said of weights files that do not fit the config."""

from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import Config
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.files import write_arrays
from tests.weights.examples import SCORES, arrays_of, changed

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


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
        "is not a detector of torchvision, Detectron2 or MMDetection, by its names: conv1.weight\n"
        "to train from a backbone, use --config.model.backbone_weights=FILE"
    )
    retinanet = {"backbone.conv1.weight": np.zeros(2), "bbox_head.cls_convs.0.conv.weight": np.zeros(2)}
    assert error("torchvision", retinanet).splitlines() == [
        "has the names of MMDetection's other detectors (bbox_head.cls_convs.0.conv.weight)",
        "convert reads only torchvision's, Detectron2's and MMDetection's own Mask, Keypoint, Faster and "
        "Cascade R-CNN on ResNets; to use the backbone alone: "
        f"--config.model.backbone_weights={tmp_path}/w.npz",
    ]
    names = arrays_of("mmdetection", masks_only, classes=80)
    assert error("detectron2", names).endswith("the names match --source=mmdetection")
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


def test_class_agnostic_heads_must_be_asked_for(tmp_path: Path, masks_only: Config, agnostic: Config) -> None:
    write_arrays(tmp_path / "w.npz", arrays_of("detectron2", agnostic, classes=80))
    with pytest.raises(ValueError) as error:
        import_weights("detectron2", tmp_path / "w.npz", masks_only, tmp_path / "run")
    assert str(error.value).splitlines()[-3:] == [
        "model.box_agnostic is False in the config, True in the file",
        "model.mask_agnostic is False in the config, True in the file",
        "to fit the file, use --config.model.box_agnostic=True --config.model.mask_agnostic=True",
    ]


@pytest.mark.parametrize(
    ("source", "changes", "problems"),
    [
        (
            "detectron2",
            {"mask_loss": "softmax", "mask_fcs": 2, "mask_convs": 0},
            ["model.mask_loss is 'softmax'; it must be 'sigmoid'", "model.mask_fcs is 2; it must be 0"],
        ),
        ("torchvision", {"mask_agnostic": True}, ["model.mask_agnostic is True; it must be False"]),
        ("mmdetection", {"keypoint": True}, ["model.keypoint is True; it must be False"]),
    ],
)
def test_heads_that_another_system_lacks(tmp_path, masks_only, source, changes, problems):
    write_arrays(tmp_path / "w.npz", arrays_of(source, masks_only, classes=80))
    with pytest.raises(ValueError) as error:
        import_weights(source, tmp_path / "w.npz", changed(masks_only, **changes), tmp_path / "run")
    system = {"torchvision": "torchvision", "detectron2": "Detectron2", "mmdetection": "MMDetection"}[source]
    assert str(error.value).splitlines() == [
        f"{system} has no such model:",
        *(f"  {problem}" for problem in problems),
    ]
