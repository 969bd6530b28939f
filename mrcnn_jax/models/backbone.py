"""What the detector needs to know of a backbone, and the choice of one by the config."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.canvas import Mask
from mrcnn_jax.models.resnet import ResNet


@runtime_checkable  # so that tests may check calls against their annotations
class Backbone(Protocol):
    """An ``nnx.Module`` from normalised images to feature maps, named ``c2``, ``c3``, ... and finest first.

    ``strides`` are the pixels from cell to cell of each map, ``channels`` the sizes of their last axes.
    """

    strides: dict[str, int]
    channels: dict[str, int]

    def __call__(
        self, images: Float[Array, "b h w 3"], mask: Mask = None
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """The maps of images that are zero beyond ``mask``, without a trace of what lies there."""
        ...

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether training leaves the parameter at ``path`` in this module as it is."""
        ...


def make_backbone(config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Backbone:
    """The backbone that ``config`` describes."""
    return ResNet(config, dtype=dtype, rngs=rngs)
