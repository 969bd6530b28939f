"""The interface of a backbone, and the construction of the one that the config names."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.regnet import RegNet
from mrcnn_jax.models.resnet import ResNet


@runtime_checkable  # so that tests may check calls against their annotations
class Backbone(Protocol):
    """An ``nnx.Module`` that maps normalised images to feature maps ``c2``, ``c3``, ..., finest first.

    ``strides`` (in pixels) and ``channels`` describe each map, by name.
    """

    strides: dict[str, int]
    channels: dict[str, int]

    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: Int[Array, "b 2"] | None = None
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Feature maps of images that are zero beyond ``sizes``; the area beyond must not affect them."""
        ...

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether the parameter at ``path`` in this module is frozen during training."""
        ...


def make_backbone(config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Backbone:
    """The backbone that ``config`` describes."""
    kind = ResNet if config.backbone == "resnet" else RegNet
    return kind(config, dtype=dtype, rngs=rngs)
