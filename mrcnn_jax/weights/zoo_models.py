"""The published models that this project can load: addresses, sizes, checksums and reported accuracy.

Sources: torchvision 0.28 (``models/detection/*.py`` and ``models/*.py``); Detectron2's ``MODEL_ZOO.md`` and
``model_zoo/model_zoo.py`` of June 2026; ``zoo_mmdetection.py``. docs/zoo.md has the table for readers.
"""

import dataclasses
import difflib
import re
import runpy
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mrcnn_jax.config import Config
from mrcnn_jax.runs.description import is_model_file, read_model, read_run
from mrcnn_jax.weights import zoo_detectron2, zoo_mmdetection

CONFIGS = Path(__file__).parents[1] / "configs"

# The name of a file of torchvision or MMDetection has the first digits of its SHA-256; that of a file
# of Detectron2 those of its MD5 (MODEL_ZOO.md).
_CHECKSUMS: dict[str, re.Pattern[str]] = {
    "sha256": re.compile(r"-([0-9a-f]{8,64})\.pth"),
    "md5": re.compile(r"model_(?:final|\d+)_([0-9a-f]{6,32})\.pkl"),
}


@dataclass(frozen=True)
class Weights:
    """A file of weights on the web."""

    name: str  # "detectron2/mask_rcnn_r50_fpn_3x"
    address: str
    mib: float | None  # size in 2^20 bytes, to three digits after the point; None if not published

    @property
    def system(self) -> str:
        """Whose it is: "torchvision", "detectron2", "mmdetection" or "pycls"."""
        return self.name.partition("/")[0]

    @property
    def file(self) -> str:
        """The file's name here: that of the address; Detectron2's backbones have their folder's in front."""
        *_, folder, name = self.address.split("/")
        return f"{folder}_{name}" if "ImageNetPretrained" in self.address else name

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The algorithm and the first hexadecimal digits of the file's checksum, if its name has them."""
        for algorithm, pattern in _CHECKSUMS.items():
            if match := pattern.search(self.file):
                return algorithm, match[1]
        return None


@dataclass(frozen=True)
class Model(Weights):
    """A detector, trained on COCO's train2017 or, with "lvis" in its name, on LVIS v1."""

    config: str  # of this project
    # Percent on val2017 or LVIS's validation set, as reported: boxes, masks, keypoints.
    ap: tuple[float | None, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)  # to the config's model

    @property
    def arguments(self) -> str:
        """The arguments of ``mrcnn-jax convert`` that select the model's config."""
        changes = [shlex.quote(f"--config.model.{name}={value}") for name, value in self.changes.items()]
        return " ".join([f"--config={self.config}", *changes])


_Item = TypeVar("_Item", bound=Weights)


def find_model(name_or_path: str | Path) -> Model | None:
    """The published model of this name; None if it is not the name of one, or if there is such a path.

    Raises ValueError for a name that begins like a published model's but is none.
    """
    return find_weights(name_or_path, MODELS)


def check_not_a_model(workdir: str | Path) -> None:
    """Raises ValueError if a new run's directory has a published model's name, which it would hide."""
    if str(workdir) in MODELS and not Path(workdir).exists():
        raise ValueError(
            f"{workdir} is a published model's name: choose another directory for the new run; to begin from "
            f"the model, train with --init={workdir}"
        )


def find_weights(name_or_path: str | Path, table: Mapping[str, _Item]) -> _Item | None:
    """The entry of this name in the table, under the rules of ``find_model``."""
    name = str(name_or_path)
    if Path(name).exists():
        return None
    systems = ("torchvision/", "detectron2/", "mmdetection/", "pycls/")
    if name not in table and name.startswith(systems) and not Path(name).suffix:
        raise ValueError(f"{name}: there is no such file or directory; {unknown_name(name, table)}")
    return table.get(name)


def unknown_name(name: str, table: Mapping[str, Weights]) -> str:
    """A message that says that no model of the table has the name, and which have similar ones."""
    similar = difflib.get_close_matches(name, table, n=3)
    suggestion = f"did you mean {' or '.join(similar)}?" if similar else "mrcnn-jax zoo lists them"
    return f"no published model is called {name}; {suggestion}"


def config_of(model: Model) -> Config:
    """The config with which the model detects as published; its training schedule may be another model's."""
    config = named_config(model.config)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model.changes))


def run_config(name_or_path: str | Path) -> Config:
    """The config of a published model, which is not downloaded for it, or of the run in a directory.

    Raises the errors of ``find_model`` and ``read_run``.
    """
    model = find_model(name_or_path)
    return config_of(model) if model else read_run(name_or_path).config


def model_config(name_or_path: str | Path) -> Config:
    """The config of ``run_config``, or of a model file, for commands that only detect objects."""
    is_file = is_model_file(name_or_path)
    return read_model(name_or_path).config if is_file else run_config(name_or_path)


def models_with(system: str, fields: Mapping[str, Any]) -> list[Model]:
    """The system's models whose configs have these values in ``model``, one for each set of arguments."""
    models = {
        model.arguments: model
        for model in MODELS.values()
        if model.system == system
        and all(getattr(config_of(model).model, name) == value for name, value in fields.items())
    }
    return list(models.values())


def named_config(name: str) -> Config:
    """The config of this project with this name, such as ``paper/table2c_roi_pool``."""
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


def _torchvision(
    name: str, file: str, mib: float, ap: tuple[float | None, ...], config: str | None = None, **changes: Any
) -> Model:
    address = f"https://download.pytorch.org/models/{file}"
    return Model(f"torchvision/{name}", address, mib, f"torchvision/{config or name}", ap, changes)


def _detectron2(
    folder: str,
    theirs: str,
    id_and_md5: str,
    ap: tuple[float | None, ...],
    config: str,
    changes: dict[str, Any],
    step: str = "final",
) -> Model:
    """The model that Detectron2 calls ``folder/theirs``; "mask_rcnn_R_50_FPN_3x" is "..._r50_fpn_3x" here."""
    name = re.sub(r"_([rx])_(\d+)", r"_\1\2", theirs.lower())
    name = re.sub(r"(\d+ep)_lsj$", r"lsj_\1", name)
    model_id, md5 = id_and_md5.split("/")
    address = f"https://dl.fbaipublicfiles.com/detectron2/{folder}/{theirs}/{model_id}/model_{step}_{md5}.pkl"
    return Model(f"detectron2/{name}", address, None, f"detectron2/{config}", ap, changes)


def _vitdet(folder: str, id_and_md5: str, ap: tuple[float | None, ...], config: str) -> Model:
    model_id, md5 = id_and_md5.split("/")
    address = f"https://dl.fbaipublicfiles.com/detectron2/ViTDet/{folder}/{model_id}/model_final_{md5}.pkl"
    return Model(f"detectron2/{config}", address, None, f"detectron2/{config}", ap)


def _mmdetection(
    folder: str, name: str, date: str, ap: tuple[float, ...], config: str, changes: Mapping[str, Any]
) -> Model:
    stem = f"{name}_coco"
    if date.startswith("AP"):
        values = (f"{value / 100:.3f}".rstrip("0") for value in ap)
        kinds = ("bbox", "segm")
        infix = "__".join(f"{kind}_mAP-{value}" for kind, value in zip(kinds, values, strict=False))
        date = f"_{infix}{date.removeprefix('AP')}"
    address = f"https://download.openmmlab.com/mmdetection/v2.0/{folder}/{stem}/{stem}{date}.pth"
    return Model(f"mmdetection/{name}", address, None, f"mmdetection/{config}", ap, changes)


# fmt: off
_MODELS = (
    _torchvision("mask_rcnn_r50_fpn", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 169.84, (37.9, 34.6)),
    _torchvision("mask_rcnn_r50_fpn_v2", "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 177.219, (47.4, 41.8)),
    _torchvision("keypoint_rcnn_r50_fpn", "keypointrcnn_resnet50_fpn_coco-fc266e95.pth", 226.054,
                 (54.6, None, 65.0)),
    _torchvision("keypoint_rcnn_r50_fpn_legacy", "keypointrcnn_resnet50_fpn_coco-9f466800.pth", 226.054,
                 (50.6, None, 61.1), "keypoint_rcnn_r50_fpn", backbone_norm_epsilon=1e-5),
    _torchvision("faster_rcnn_r50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 159.743, (37.0,)),
    _torchvision("faster_rcnn_r50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 167.104, (46.7,),
                 "mask_rcnn_r50_fpn_v2", mask=False),
    *(_detectron2(*row) for row in zoo_detectron2.ROWS),
    *(_vitdet(*row) for row in zoo_detectron2.VITDET),
    *(_mmdetection(*row) for row in zoo_mmdetection.ROWS),
)

# ImageNet backbones. Detectron2's MSRA and FAIR files and pycls's expect BGR pixels; see
# ``backbone.expected_input``.
_BACKBONES = (
    *(
        Weights(f"torchvision/{file.partition('-')[0]}{version}",
                f"https://download.pytorch.org/models/{file}", mib)
        for file, mib, version in (
            ("resnet18-f37072fd.pth", 44.661, ""),
            ("resnet34-b627a593.pth", 83.275, ""),
            ("resnet50-0676ba61.pth", 97.781, ""),
            ("resnet50-11ad3fa6.pth", 97.79, "_v2"),
            ("resnet101-63fe2227.pth", 170.511, ""),
            ("resnet101-cd907fc2.pth", 170.53, "_v2"),
            ("resnet152-394f9c45.pth", 230.434, ""),
            ("resnet152-f82ba261.pth", 230.474, "_v2"),
            ("resnext50_32x4d-7cdf4587.pth", 95.789, ""),
            ("resnext50_32x4d-1a0047aa.pth", 95.833, "_v2"),
            ("resnext101_32x8d-8ba56ff5.pth", 339.586, ""),
            ("resnext101_32x8d-110c445d.pth", 339.673, "_v2"),
            ("resnext101_64x4d-173b62eb.pth", 319.318, ""),
            ("convnext_tiny-983f1562.pth", 109.119, ""),
            ("convnext_small-0c510722.pth", 191.703, ""),
            ("swin_t-704ceda3.pth", 108.19, ""),
            ("swin_s-5e29d889.pth", 189.786, ""),
            ("regnet_x_400mf-adf1edd5.pth", 21.258, ""),
            ("regnet_x_400mf-62229a5f.pth", 21.257, "_v2"),
            ("regnet_x_800mf-ad17e45c.pth", 27.945, ""),
            ("regnet_x_800mf-94a99ebd.pth", 27.945, "_v2"),
            ("regnet_x_1_6gf-e3633e7f.pth", 35.339, ""),
            ("regnet_x_1_6gf-a12f2b72.pth", 35.339, "_v2"),
            ("regnet_x_3_2gf-f342aeae.pth", 58.756, ""),
            ("regnet_x_3_2gf-7071aa85.pth", 58.756, "_v2"),
            ("regnet_x_8gf-03ceed89.pth", 151.456, ""),
            ("regnet_x_8gf-2b70d774.pth", 151.456, "_v2"),
            ("regnet_x_16gf-2007eb11.pth", 207.627, ""),
            ("regnet_x_16gf-ba3796d7.pth", 207.627, "_v2"),
            ("regnet_x_32gf-9d47f8d0.pth", 412.039, ""),
            ("regnet_x_32gf-6eb8fdc6.pth", 412.039, "_v2"),
            ("regnet_y_400mf-c65dace8.pth", 16.806, ""),
            ("regnet_y_400mf-e6988f5f.pth", 16.806, "_v2"),
            ("regnet_y_800mf-1b27b58c.pth", 24.774, ""),
            ("regnet_y_800mf-58fc7688.pth", 24.774, "_v2"),
            ("regnet_y_1_6gf-b11a554e.pth", 43.152, ""),
            ("regnet_y_1_6gf-0d7bc02a.pth", 43.152, "_v2"),
            ("regnet_y_3_2gf-b5a9779c.pth", 74.567, ""),
            ("regnet_y_3_2gf-9180c971.pth", 74.567, "_v2"),
            ("regnet_y_8gf-d0d0e4a8.pth", 150.701, ""),
            ("regnet_y_8gf-dc2b1b54.pth", 150.701, "_v2"),
            ("regnet_y_16gf-9e6ed7dd.pth", 319.49, ""),
            ("regnet_y_16gf-3e4a00f9.pth", 319.49, "_v2"),
            ("regnet_y_32gf-4dee3f7a.pth", 554.076, ""),
            ("regnet_y_32gf-8db6d4b5.pth", 554.076, "_v2"),
        )
    ),
    *(
        Weights(f"detectron2/{file.removesuffix('.pkl')}",
                f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/{file}", None)
        for file in ("MSRA/R-50.pkl", "MSRA/R-101.pkl", "FAIR/X-101-32x8d.pkl", "torchvision/R-50.pkl")
    ),
    *(
        Weights(f"detectron2/FAIR/{file.partition('/')[2].removesuffix('.pkl')}",
                f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/{file}", None)
        for file in ("47261647/R-50-GN.pkl", "47592356/R-101-GN.pkl")
    ),
    *(
        Weights(f"detectron2/MAE/vit_{size}",
                f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MAE/{file}", None)
        for size, file in (
            ("b", "mae_pretrain_vit_base.pth"),
            ("l", "mae_pretrain_vit_large.pth"),
            ("h", "mae_pretrain_vit_huge_p14to16.pth"),
        )
    ),
    *(
        Weights(f"detectron2/FAIR/{file.partition('/')[2].removesuffix('.pkl')}",
                f"https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/{file}", None)
        for file in ("FBResNeXt/X-101-64x4d.pkl", "25093814/X-152-32x8d-IN5k.pkl")
    ),
    *(  # which Detectron2's configs with RegNets begin from
        Weights(f"pycls/regnet{kind}_4gf_dds_8gpu",
                "https://dl.fbaipublicfiles.com/pycls/dds_baselines/"
                f"{number}/RegNet{kind.upper()}-4.0GF_dds_8gpu.pyth", None)
        for kind, number in (("x", 160906383), ("y", 160906838))
    ),
)
# fmt: on

MODELS = {model.name: model for model in _MODELS}
BACKBONES = {backbone.name: backbone for backbone in _BACKBONES}
