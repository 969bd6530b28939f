"""The construction of the pyramid that the config names."""

from typing import Any

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.backbone import Backbone
from mrcnn_jax.models.fpn import FPN
from mrcnn_jax.models.simple_pyramid import SimplePyramid


def make_pyramid(config: ModelConfig, backbone: Backbone, **kwargs: Any) -> FPN | SimplePyramid:
    """FPN, or the simple pyramid of ViTDet if the backbone has one map only."""
    frozen = config.fpn_frozen and config.fpn_norm == "batch"
    norm = "frozen_batch" if frozen else config.fpn_norm
    if len(backbone.channels) == 1:
        (in_channels,) = backbone.channels.values()
        return SimplePyramid(in_channels, config.fpn_channels, norm=norm, **kwargs)
    kwargs |= {"norm": norm, "fuse": config.fpn_fuse}
    return FPN(backbone.channels, backbone.strides, config.fpn_channels, **kwargs)
