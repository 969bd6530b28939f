"""Which form of an op each platform uses: the one place where that is chosen."""

from collections.abc import Callable
from typing import Any

from jax import lax

# The form of RoIAlign, of the features and of the gradient. "cached" keeps what a core works on in its cache;
# "gather" pools all regions at once, in few large steps; "einsum" consists of matmuls, which a TPU is built
# for. A GPU, the default, gathers well, but its gradient would be a scatter: in jaxlib 0.10.2 to 0.11.0 a
# float32 scatter-add is a compare-and-swap loop, reported to be hundreds of times slower under contention
# (openxla/xla issue 46225). The choices for accelerators are reasoned, not measured; ``python -m
# benchmarks.roi`` measures them.
ROI_ALIGN = {"cpu": "cached", "tpu": "einsum", "default": "gather"}
ROI_ALIGN_GRADIENT = {"cpu": "cached", "default": "einsum"}

# Boxes that non-maximum suppression decides together. On a CPU few, so that most suppressed boxes meet kept
# ones alone; 32 was the fastest of 32, 64 and 128. Elsewhere a loop step costs more than its work, so all the
# boxes of an image are one block, up to a 256 MB boolean matrix of all pairs: 8819 of a pyramid in training,
# 12000 of a C4 model. Reasoned, not measured, for accelerators.
NMS_BLOCK = {"cpu": 32, "default": 16384}


def by_platform(forms: dict[str, Callable[..., Any]], *operands: Any) -> Any:
    """``forms[platform](*operands)`` for the platform that the program is compiled for, or for "default"."""
    return lax.platform_dependent(*operands, **forms)
