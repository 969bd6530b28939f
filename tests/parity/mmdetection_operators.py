"""Stand-ins for mmcv's compiled operators, so that MMDetection runs on a CPU with mmcv-lite.

``install`` puts them in the place of ``mmcv.ops``: RoIAlign, suppression and deformable convolutions are
torchvision's operators, which compute the same; every other operator is a class that fails if it is used.
"""

import sys
import types
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

_SUBMODULES = (
    *("nms", "carafe", "merge_cells", "modulated_deform_conv", "roi_align"),
    "multi_scale_deform_attn",
)
_SPLIT = 10_000  # boxes; mmcv suppresses those of fewer boxes in one call


class RoIAlign(nn.Module):
    """mmcv's RoIAlign, for its default mode "avg"."""

    def __init__(
        self, output_size: int, spatial_scale: float, sampling_ratio: int = 0, aligned: bool = True
    ) -> None:
        super().__init__()
        self.output_size = (output_size, output_size)
        self.options = {
            "spatial_scale": spatial_scale,
            "sampling_ratio": sampling_ratio if sampling_ratio > 0 else -1,
            "aligned": aligned,
        }

    def forward(self, maps: Tensor, regions: Tensor) -> Tensor:
        return torchvision.ops.roi_align(maps, regions, self.output_size, **self.options)


def batched_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms_cfg: dict[str, Any], class_agnostic: bool = False
) -> tuple[Tensor, Tensor]:
    """Suppression within each group, best scores first: boxes with scores ``[K 5]``, and their indices.

    As in mmcv, the groups of up to 10,000 boxes are moved apart by the largest coordinate plus 1.
    """
    assert not class_agnostic and nms_cfg["type"] == "nms"
    threshold = nms_cfg["iou_threshold"]
    if len(boxes) < _SPLIT:
        apart = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
        kept = torchvision.ops.nms(apart, scores, threshold)
    else:
        of_groups = [torch.nonzero(groups == group)[:, 0] for group in groups.unique()]
        found = [rows[torchvision.ops.nms(boxes[rows], scores[rows], threshold)] for rows in of_groups]
        kept = torch.cat(found)
        kept = kept[scores[kept].argsort(descending=True)]
    return torch.cat([boxes[kept], scores[kept, None]], dim=1), kept


class DeformConv2dPack(nn.Conv2d):
    """mmcv's layer "DCN": an ordinary convolution gives the offsets, y before x, of a deformable one."""

    outputs = 18

    def __init__(self, *args: Any, deform_groups: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert deform_groups == 1
        self.conv_offset = nn.Conv2d(
            self.in_channels,
            self.outputs,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv_offset(x)
        mask = found[:, 18:].sigmoid() if found.shape[1] > 18 else None
        return torchvision.ops.deform_conv2d(
            x,
            found[:, :18],
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=mask,
        )


class ModulatedDeformConv2dPack(DeformConv2dPack):
    """mmcv's layer "DCNv2": the last 9 outputs are the logits of the cells' weights."""

    outputs = 27


class _Operators(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _fail})


def _fail(*_: Any, **__: Any) -> None:
    raise NotImplementedError("no stand-in for this operator of mmcv")


def install() -> None:
    """Makes ``mmcv.ops`` these operators, before mmdet is imported."""
    import mmcv
    from mmengine.registry import MODELS

    package = _Operators("mmcv.ops")
    package.__path__ = []
    for name in _SUBMODULES:
        module = _Operators(f"mmcv.ops.{name}")
        setattr(package, name, module)
        sys.modules[module.__name__] = module
    package.RoIAlign, package.batched_nms = RoIAlign, batched_nms
    package.nms.batched_nms = batched_nms
    sys.modules["mmcv.ops"] = mmcv.ops = package
    MODELS.register_module(name="MMSyncBN", module=nn.SyncBatchNorm)
    MODELS.register_module(name="DCN", module=DeformConv2dPack)
    MODELS.register_module(name="DCNv2", module=ModulatedDeformConv2dPack)
