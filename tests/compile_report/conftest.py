"""Compiling for absent chips, where their compilers are installed (make test-compilers)."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from mrcnn_jax.compile_report.chips import Gpu, Topology, prepare_environment
from mrcnn_jax.compile_report.report import Report, make_report

Compile = Callable[..., Report]


@pytest.fixture(scope="session")
def without_devices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ)
        prepare_environment()
        yield


@pytest.fixture
def compile_for(without_devices: None) -> Compile:
    """The report of a function of arrays, compiled for a topology; skips the test without its compiler."""
    import jax

    from mrcnn_jax.compile_report.programs import compile_for
    from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh

    def report(text: str, function: Callable[..., Any], *operands: Any) -> Report:
        topology = Topology.parse(text)
        package = "jax_plugins" if isinstance(topology.chip, Gpu) else "libtpu"
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: make test-compilers")
        mesh = make_mesh(topology.devices())
        shardings = tuple(batch_sharding(mesh) for _ in operands)
        with jax.set_mesh(mesh):
            lowered = jax.jit(function, in_shardings=shardings).lower(*operands)
        return make_report(compile_for(lowered, topology), topology.chip)

    return report
