"""Folds batch norms into the preceding convolutions.

With fixed statistics a batch norm multiplies each channel by one constant and adds another. The preceding
convolution can do both: the factor scales its kernel, the offset becomes its bias. What remains is
convolution, bias and ReLU, for which accelerator libraries have a single kernel. A CPU gains nothing, because
XLA fuses norm and ReLU. Inference folds every batch norm, and training, on accelerators, the frozen ones: the
kernel's gradient passes through the product.

A module lists its foldable pairs in ``conv_norms``: the names of a convolution and of the norm after it.
"""

from typing import Any, TypeVar

from flax import nnx
from jax import Array
from jaxtyping import Float

from mrcnn_jax.models.canvas import Mask
from mrcnn_jax.models.norm import FrozenBatchNorm, scale_and_shift

Model = TypeVar("Model", bound=nnx.Module)


class Folded(nnx.Module):
    """Identity that replaces a batch norm folded into the preceding convolution."""

    def __call__(self, x: Float[Array, "b h w c"], *, mask: Mask = None) -> Float[Array, "b h w c"]:
        return x


def fold_norms(model: Model, *, only_frozen: bool = False) -> Model:
    """``model``, changed in place, with every batch norm that follows a convolution folded into it.

    Results differ only by rounding. Kernels are multiplied in float32, whatever dtype the model computes in.
    Group norms are kept, and with ``only_frozen`` batch norms that are trained, too.
    """
    kinds = FrozenBatchNorm if only_frozen else FrozenBatchNorm | nnx.BatchNorm
    for _, module in nnx.iter_modules(model):
        for conv_path, norm_path in getattr(module, "conv_norms", ()):
            conv, norm = _child(module, conv_path), _child(module, norm_path)
            if conv is not None and isinstance(norm, kinds):
                scale, shift = scale_and_shift(norm)
                conv.kernel[...] *= scale
                conv.bias = nnx.Param(shift)
                owner, _, name = norm_path.rpartition(".")
                setattr(_child(module, owner), name, Folded())
    return model


def _child(module: Any, path: str) -> Any:
    """The submodule at a dotted path (``module`` itself for ""); None if there is none."""
    for name in filter(None, path.split(".")):
        module = getattr(module, name, None)
    return module
