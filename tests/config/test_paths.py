import re

import pytest

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.config.paths import check_backbone_path, check_data_paths


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "records").mkdir()
    (tmp_path / "objects.json").touch()
    return tmp_path


def _config(root, **data):
    return Config(data=DataConfig(root=str(root), **data))


def test_what_exists_is_not_told(root):
    present = {"images": "photos", "annotations": "objects.json"}
    for split in ("train", "val"):
        paths = {f"{split}_{name}": path for name, path in present.items()}
        check_data_paths(_config(root, **paths), split)
        check_data_paths(_config(root, **paths, **{f"{split}_keypoints": "objects.json"}), split)
        check_data_paths(_config(root, **{f"{split}_records": "records"}), split)


def test_every_missing_path_is_told_with_its_field(root):
    config = _config(root, val_images="objects.json", val_annotations="photos", val_keypoints="none.json")
    with pytest.raises(ValueError) as error:
        check_data_paths(config, "val")
    assert str(error.value).splitlines() == [
        f"{root}/objects.json: there is no such folder (data.val_images)",
        f"{root}/photos: there is no such file (data.val_annotations)",
        f"{root}/none.json: there is no such file (data.val_keypoints)",
    ]
    with pytest.raises(ValueError, match=r"no such folder \(data.train_records\)"):
        check_data_paths(_config(root, train_records="objects.json"), "train")
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(root))}/x: there is no such folder \(data.root\)$"
    ):
        check_data_paths(_config(root / "x"), "train")


def test_the_backbones_file(root):
    check_backbone_path(Config())
    check_backbone_path(Config(model=ModelConfig(backbone_weights=str(root / "objects.json"))))
    check_backbone_path(Config(model=ModelConfig(backbone_weights="torchvision/resnet50")))
    with pytest.raises(ValueError, match=r"none.pth: there is no such file \(model.backbone_weights\)"):
        check_backbone_path(Config(model=ModelConfig(backbone_weights=str(root / "none.pth"))))
    with pytest.raises(
        ValueError, match=r"address of a whole model: .*--init=detectron2/mask_rcnn_r50_fpn_3x"
    ):
        check_backbone_path(Config(model=ModelConfig(backbone_weights="detectron2://COCO/1/model_final.pkl")))
