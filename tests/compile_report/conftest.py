"""Compiling for absent chips, where their compilers are installed (make test-compilers)."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from mrcnn_jax.compile_report.chips import Gpu, Topology, prepare_environment
from mrcnn_jax.compile_report.hlo import Program
from mrcnn_jax.compile_report.report import Report, make_report


@pytest.fixture(scope="session")
def compiled() -> Callable[..., tuple[Report, Program]]:
    """Compiles what ``lower`` returns for a mesh of a topology's devices; skips without the compiler."""
    from mrcnn_jax.compile_report.programs import compile_for
    from mrcnn_jax.distributed.sharding import make_mesh

    prepare_environment()

    def compile_(text: str, lower: Callable[[Any], Any]) -> tuple[Report, Program]:
        topology = Topology.parse(text)
        package = "jax_plugins" if isinstance(topology.chip, Gpu) else "libtpu"
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: make test-compilers")
        program = compile_for(lower(make_mesh(topology.devices())), topology)
        return make_report(program, topology.chip), Program(program.as_text())

    return compile_
