"""Checks that the files and folders of a config exist, before anything that takes time."""

from pathlib import Path
from typing import Literal

from mrcnn_jax.config.fields import Config


def check_data_paths(config: Config, split: Literal["train", "val"]) -> None:
    """Raises ValueError unless the folders and files of ``split`` in ``config.data`` exist.

    The message lists each missing one with its field.
    """
    data, root = config.data, Path(config.data.root)
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder (data.root)")
    if getattr(data, f"{split}_records"):
        wanted = {"records": "folder"}
    else:
        wanted = {"images": "folder", "annotations": "file", "keypoints": "file"}
    wanted["proposals"] = "file"
    problems = []
    for name, kind in wanted.items():
        field = f"{split}_{name}"
        path = root / getattr(data, field)
        exists = path.is_dir() if kind == "folder" else path.is_file()
        if getattr(data, field) and not exists:
            problems.append(f"{path}: there is no such {kind} (data.{field})")
    if split == "train":
        problems += _missing_further_paths(config)
    if problems:
        raise ValueError("\n".join(problems))


def _missing_further_paths(config: Config) -> list[str]:
    data, root = config.data, Path(config.data.root)
    problems = []
    for index, annotations in enumerate(data.more_train_annotations):
        records = data.more_train_records[index] if data.more_train_records else ""
        if records:
            wanted = [("records", root / records, "folder")]
        else:
            images = root / data.more_train_images[index]
            wanted = [("images", images, "folder"), ("annotations", root / annotations, "file")]
        problems += [
            f"{path}: there is no such {kind} (data.more_train_{name})"
            for name, path, kind in wanted
            if not (path.is_dir() if kind == "folder" else path.is_file())
        ]
    return problems


def check_backbone_path(config: Config) -> None:
    """Raises ValueError if ``model.backbone_weights`` is the path of a file that does not exist.

    A path has a suffix, such as ``.pth``; the names of published backbones (docs/zoo.md) have none.
    """
    path = config.model.backbone_weights
    if path.startswith("detectron2://"):
        raise ValueError(
            f"model.backbone_weights is {path}, Detectron2's address of a whole model: begin from it by its "
            "name here, as in --init=detectron2/mask_rcnn_r50_fpn_3x; mrcnn-jax zoo lists the names"
        )
    if Path(path).suffix and not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file (model.backbone_weights)")
