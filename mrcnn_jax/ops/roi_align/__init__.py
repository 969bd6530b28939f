"""RoIAlign (Mask R-CNN, section 3 and figure 3).

Read ``plain.py`` first: it defines the op in ordinary JAX. ``forms.py`` gives the same results faster, in
the form that suits the platform: ``gather.py`` for CPUs and GPUs, ``windows.py`` for TPUs, and ``einsum.py``
for maxima on a TPU.
"""

from mrcnn_jax.ops.roi_align.forms import multilevel_roi_align, roi_align

__all__ = ["multilevel_roi_align", "roi_align"]
