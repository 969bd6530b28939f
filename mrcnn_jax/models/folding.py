"""Batch norms made part of the convolutions before them, for inference.

There a batch norm multiplies each channel by a constant and adds another, which the convolution before it can
do: its kernel times the one, and the other as its bias. That leaves convolution, bias and ReLU, for which
accelerators' libraries have one kernel. On the CPU it gains nothing: XLA fuses the norm with the ReLU.
"""

from typing import Any, TypeVar

from flax import nnx
from jax import Array
from jaxtyping import Float

from mrcnn_jax.models.convs import Conv
from mrcnn_jax.models.norm import FrozenBatchNorm, Mask, scale_and_shift

Model = TypeVar("Model", bound=nnx.Module)

# The name, or index in a list, of a convolution, and of the norm that follows it if there is one.
_PAIRS: tuple[tuple[Any, Any], ...] = (
    ("conv1", "bn1"),
    ("conv2", "bn2"),
    ("conv3", "bn3"),
    ("conv", "norm"),
    (0, 1),
)


class Folded(nnx.Module):
    """In place of a norm that the convolution before it does."""

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        return x


def fold_norms(model: Model) -> Model:
    """``model``, changed to have no batch norm after a convolution; results differ in rounding alone.

    Kernels are multiplied in float32, whatever type the model computes in. Group norm stays.
    """
    for _, module in nnx.iter_modules(model):
        children = dict(nnx.iter_children(module))
        for conv_name, norm_name in _PAIRS:
            conv, norm = children.get(conv_name), children.get(norm_name)
            if isinstance(conv, Conv) and isinstance(norm, FrozenBatchNorm | nnx.BatchNorm):
                scale, shift = scale_and_shift(norm)
                conv.kernel[...] *= scale
                conv.bias = nnx.Param(shift)
                if isinstance(module, nnx.List):
                    module[norm_name] = Folded()
                else:
                    setattr(module, norm_name, Folded())
    return model
