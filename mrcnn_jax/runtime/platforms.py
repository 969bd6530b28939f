"""Chooses the form of an op for each platform; no other module does."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# Forms of RoIAlign and of its gradient. "cached" keeps a core's data in its cache. "gather" pools all regions
# at once, in few large steps. A GPU, the default, gathers well, and scatters well by native atomic additions,
# to which jaxlib 0.10.2 compiles the gradient of "gather" for an H100 and, with the options of
# ``compilations.py``, for an A100 (without them it is a loop of compare and swap). "windows" consists of
# matmuls, which a TPU is built for, with the cells around each region: by libtpu's own schedule for a v5e it
# takes a tenth of the time of "einsum", which multiplies each region with whole maps. The choices for
# accelerators follow from compiled programs; they were not measured, and ``mrcnn-jax benchmark roi`` measures
# them.
ROI_ALIGN = {"cpu": "cached", "tpu": "windows", "default": "gather"}
ROI_ALIGN_GRADIENT = {"cpu": "cached", "tpu": "windows", "default": "gather"}

# How a deformable convolution reads the four cells around each place. By libtpu's schedule for a v5e
# "together" halves the time with 512 channels; it was not measured. On a CPU "apart" is the faster.
DEFORM_CONV = {"cpu": "apart", "default": "together"}

# Boxes that non-maximum suppression decides together. Few on a CPU, so that most suppressed boxes are only
# compared with kept ones; 32 was the fastest of 32, 64 and 128. Elsewhere a loop step costs more than its
# arithmetic, so all boxes of an image are decided at once, up to 16384. For accelerators this is reasoned
# from compiled programs, not measured.
NMS_BLOCK = {"cpu": 32, "default": 16384}

# Suppression within the levels of a pyramid. "joint" stops once enough boxes are kept over all levels, which
# spares a CPU most comparisons; "apart" compares a fifth of all pairs, and need not sort the boxes first.
NMS_LEVELS = {"cpu": "joint", "default": "apart"}

# Backbone stages whose activations are recomputed for the gradient, unless the config says how many: on a CPU
# this halves a step's memory and takes no longer. An accelerator has the memory, and would lose time.
RECOMPUTED_STAGES = {"cpu": 4, "default": 0}


def platform() -> str:
    """The platform that a program is traced for: its mesh's (``jax.set_mesh``), without one JAX's default.

    For choices that are right on any platform, and fast on one: a program that was traced without a mesh may
    be lowered for another platform.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def by_platform(forms: dict[str, Callable[..., Any]], *operands: Any) -> Any:
    """``forms[platform](*operands)`` for the platform that the program is compiled for, or for "default".

    Under a mesh (``jax.set_mesh``) the platform is its devices', and only that form is traced: half of the
    tracing on a CPU. Without a mesh every form is traced, and the program may be lowered for any platform,
    but not for a TPU and others at once: they lack the kernels of a TPU.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return lax.platform_dependent(*operands, **forms)
    return forms.get(device.platform, forms["default"])(*operands)
