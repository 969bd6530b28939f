"""The interface of a backbone, and the construction of the one that the config names."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.convnext import ConvNeXt
from mrcnn_jax.models.regnet import RegNet
from mrcnn_jax.models.resnet import ResNet
from mrcnn_jax.models.swin import Swin
from mrcnn_jax.models.vit import ViT


@runtime_checkable  # so that tests may check calls against their annotations
class Backbone(Protocol):
    """An ``nnx.Module`` that maps normalised images to feature maps ``c2``, ``c3``, ..., finest first.

    ``strides`` (in pixels) and ``channels`` describe each map, by name.
    """

    strides: dict[str, int]
    channels: dict[str, int]

    def __call__(
        self,
        images: Float[Array, "b h w n"],
        sizes: Int[Array, "b 2"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Feature maps of images that are zero beyond ``sizes``; the area beyond must not affect them.

        ``keys``, one for each image, are for what a backbone does at random in training (drop paths).
        """
        ...

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether the parameter at ``path`` in this module is frozen during training."""
        ...


def make_backbone(config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Backbone:
    """The backbone that ``config`` describes."""
    kinds: dict[str, type] = {
        "resnet": ResNet,
        "regnetx": RegNet,
        "regnety": RegNet,
        "convnext": ConvNeXt,
        "swin": Swin,
        "vit": ViT,
    }
    backbone: Backbone = kinds[config.backbone.partition("_")[0]](config, dtype=dtype, rngs=rngs)
    return backbone
