"""MMDetection's models with seeded weights, for ``mmdetection_peer.py``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdetection_operators
import numpy as np
import torch
from mmdetection_seeded import seeded
from seeded import CLASSES, factor

mmdetection_operators.install()

import mmdet  # noqa: E402, as it needs the operators
from mmdet.registry import MODELS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import DefaultScope, init_default_scope  # noqa: E402

CONFIGS = Path(mmdet.__file__).parent / ".mim/configs"

# The configurations that the narrow models start from.
TINY_MODELS = {
    "mask": "mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco",
    "cascade": "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco",
    "deform": "dcnv2/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco",
    "swin": "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco",
    "faster": "faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco",
}


def read_config(model: str) -> Config:
    """The configuration of a model, such as "mask_rcnn/mask-rcnn_r50_fpn_1x_coco"."""
    return Config.fromfile(CONFIGS / f"{model}.py")


def build_unseeded(config: Config) -> torch.nn.Module:
    """The model with weights that are not defined."""
    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmdet")
    import mmdet.models  # noqa: F401, which registers them

    return MODELS.build(config.model)


def build(config: Config, gains: Sequence[str] = ()) -> torch.nn.Module:
    """The model, in evaluation mode, with seeded weights, times the ``gains`` (``seeded.factor``)."""
    model = build_unseeded(config)
    std = config.model.data_preprocessor.std[0]
    state = {
        name: torch.from_numpy(seeded(name, tuple(value.shape), pixel_std=std) * factor(name, gains))
        if value.is_floating_point()
        else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def tiny_config(kind: str) -> Config:
    """The configuration of a narrow model that has all parts of the full one."""
    config = read_config(TINY_MODELS[kind])
    model = config.model
    channels = 12 if kind == "swin" else 32
    model.backbone.update({"embed_dims": 12} if kind == "swin" else {"base_channels": 8})
    if kind == "faster":
        model.backbone.update(depth=50, groups=4, base_width=2)
    model.neck.update(in_channels=[channels * 2**stage for stage in range(4)], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.rpn_head.anchor_generator.update(scales=[4])
    heads = model.roi_head
    for extractor in _all(heads.bbox_roi_extractor) + _all(heads.get("mask_roi_extractor")):
        extractor.update(out_channels=16, finest_scale=8)
    for head in _all(heads.bbox_head):
        head.update(in_channels=16, fc_out_channels=32, num_classes=CLASSES)
    for head in _all(heads.get("mask_head")):
        head.update(in_channels=16, conv_out_channels=16, num_convs=2, num_classes=CLASSES)
    model.test_cfg.rpn.update(nms_pre=300, max_per_img=200)
    model.test_cfg.rcnn.update(score_thr=0.01, max_per_img=20)
    return config


def _all(part: Any) -> list[Any]:
    """The parts of all stages of a cascade, or the one there is."""
    if part is None:
        return []
    return list(part) if isinstance(part, list) else [part]


def state_dict(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}
