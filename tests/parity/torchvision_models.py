"""torchvision's detectors, configured as for its COCO weights, but with ``seeded`` weights.

In the first versions of the models the backbone's norm layers are frozen, with an epsilon of 0, and its stem
and first stage are not trained. The v2 models train everything: if torchvision trains fewer stages of such a
model, the norms in the others still use each batch's statistics, which this project's do not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from seeded import CLASSES, KEYPOINTS, seeded
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN, keypoint_rcnn, mask_rcnn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

_FIRST_VERSIONS: dict[str, Callable[..., FasterRCNN]] = {
    "maskrcnn_resnet50_fpn": partial(MaskRCNN, num_classes=91),
    "keypointrcnn_resnet50_fpn": partial(KeypointRCNN, num_classes=2, num_keypoints=17),
    "fasterrcnn_resnet50_fpn": partial(FasterRCNN, num_classes=91),
}
MODELS = (*_FIRST_VERSIONS, "maskrcnn_resnet50_fpn_v2")
TINY_MODELS = ("mask", "keypoint", "v2")


def build(name: str, **settings: Any) -> FasterRCNN:
    """The torchvision model of this name; ``settings`` are arguments of ``FasterRCNN``."""
    if name in _FIRST_VERSIONS:
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
        model = _FIRST_VERSIONS[name](backbone, **settings)
        overwrite_eps(model, 0.0)
    else:
        model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, **settings)
    return _finish(model)


def build_tiny(kind: str, **settings: Any) -> FasterRCNN:
    """A narrow model with all parts of the full one: "mask" and "keypoint" of the first version, or "v2"."""
    second = kind == "v2"
    # Bottlenecks in one model, plain blocks in the others, which compile faster.
    block, blocks = (Bottleneck, [3, 4, 6, 3]) if kind == "mask" else (BasicBlock, [2, 2, 2, 2])
    body = _NarrowResNet(block, blocks, width=8, norm_layer=nn.BatchNorm2d if second else FrozenBatchNorm2d)
    backbone = BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(stage - 1) for stage in range(1, 5)},
        in_channels_list=[8 * 2**stage * block.expansion for stage in range(4)],
        out_channels=16,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d if second else None,
    )
    anchors = AnchorGenerator(tuple((size,) for size in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5)
    classes = 2 if kind == "keypoint" else CLASSES + 1
    settings |= {
        "rpn_anchor_generator": anchors,
        "rpn_head": RPNHead(16, 3, conv_depth=2 if second else 1),
        "box_roi_pool": _pool(7),
        "box_head": FastRCNNConvFCHead((16, 7, 7), [16, 16], [32], norm_layer=nn.BatchNorm2d)
        if second
        else TwoMLPHead(16 * 7 * 7, 32),
        "box_predictor": FastRCNNPredictor(32, classes),
    }
    if kind == "keypoint":
        settings |= {
            "keypoint_roi_pool": _pool(14),
            "keypoint_head": keypoint_rcnn.KeypointRCNNHeads(16, (16, 16)),
            "keypoint_predictor": keypoint_rcnn.KeypointRCNNPredictor(16, KEYPOINTS),
        }
        # KeypointRCNN takes the number of keypoints from its predictor.
        model = KeypointRCNN(backbone, num_keypoints=None, **settings)
    else:
        norm = nn.BatchNorm2d if second else None
        settings |= {
            "mask_roi_pool": _pool(14),
            "mask_head": mask_rcnn.MaskRCNNHeads(16, (16, 16), 1, norm_layer=norm),
            "mask_predictor": mask_rcnn.MaskRCNNPredictor(16, 16, classes),
        }
        model = MaskRCNN(backbone, **settings)
    overwrite_eps(model, 0.0)
    return _finish(model)


def load_seeded(model: nn.Module) -> None:
    """Sets, or resets, the model's weights to the seeded ones."""
    state = model.state_dict()
    for name, value in state.items():
        weight = seeded(name, tuple(value.shape)) if value.ndim else 0  # the number of batches tracked
        value.copy_(torch.as_tensor(weight))


def _finish(model: FasterRCNN) -> FasterRCNN:
    frozen_norms = isinstance(model.backbone.body["bn1"], FrozenBatchNorm2d)
    for name, parameter in model.backbone.body.named_parameters():
        parameter.requires_grad_(not frozen_norms or name.startswith(("layer2", "layer3", "layer4")))
    load_seeded(model)
    return model.eval()


def _pool(size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(["0", "1", "2", "3"], size, sampling_ratio=2, canonical_scale=32)


class _NarrowResNet(ResNet):
    """A ResNet with ``width`` channels after the stem instead of 64."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: list[int],
        *,
        width: int,
        norm_layer: Callable[..., nn.Module],
    ) -> None:
        super().__init__(block, blocks, norm_layer=norm_layer)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(width)
        for stage, count in enumerate(blocks):
            layer = self._make_layer(block, width * 2**stage, count, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
