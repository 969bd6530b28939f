"""Tells without JAX, whose import takes seconds, that a process may be one of several."""

import importlib.util
import os

# Variables of Open MPI, other MPIs, SLURM and Kubernetes.
_PREFIXES = ("OMPI_", "PMI_", "PMIX_", "SLURM_", "KUBERNETES_")


def may_have_peers() -> bool:
    """Whether something may have started this process as one of several; ``hosts.join`` finds out.

    False is certain: no launcher that JAX recognises has set a variable, and there is no support for TPUs,
    whose hosts need no variable to find each other.
    """
    return any(name.startswith(_PREFIXES) for name in os.environ) or bool(importlib.util.find_spec("libtpu"))
