"""Chooses the form of an op for each platform; no other module does."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# Forms of RoIAlign and of its gradient. "cached" keeps a core's data in its cache; "gather" pools all regions
# at once, in few large steps; "einsum" consists of matmuls, which a TPU is built for. A GPU, the default,
# gathers well, but the gradient would be a scatter: in jaxlib 0.10.2 to 0.11.0 a float32 scatter-add is a
# compare-and-swap loop, reported to be hundreds of times slower under contention (openxla/xla issue 46225).
# The choices for accelerators are reasoned, not measured; ``mrcnn-jax benchmark roi`` measures them.
ROI_ALIGN = {"cpu": "cached", "tpu": "einsum", "default": "gather"}
ROI_ALIGN_GRADIENT = {"cpu": "cached", "default": "einsum"}

# Boxes that non-maximum suppression decides together. Few on a CPU, so that most suppressed boxes are only
# compared with kept ones; 32 was the fastest of 32, 64 and 128. Elsewhere a loop step costs more than its
# arithmetic, so all boxes of an image are decided at once, up to 16384. For accelerators this is reasoned
# from compiled programs, not measured.
NMS_BLOCK = {"cpu": 32, "default": 16384}

# Suppression within the levels of a pyramid. "joint" stops once enough boxes are kept over all levels, which
# spares a CPU most comparisons; "apart" compares a fifth of all pairs, and need not sort the boxes first.
NMS_LEVELS = {"cpu": "joint", "default": "apart"}


def by_platform(forms: dict[str, Callable[..., Any]], *operands: Any) -> Any:
    """``forms[platform](*operands)`` for the platform that the program is compiled for, or for "default".

    Under a mesh (``jax.set_mesh``) the platform is its devices', and only that form is traced: half of the
    tracing on a CPU. Without a mesh every form is traced, and the program may be lowered for any platform.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return lax.platform_dependent(*operands, **forms)
    return forms.get(device.platform, forms["default"])(*operands)
