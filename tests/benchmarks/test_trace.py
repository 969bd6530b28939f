"""benchmarks/trace.py: to which stage the profiler's times are added, and that none is counted twice."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mrcnn_jax.benchmarks import trace

TEXT = (Path(__file__).parents[1] / "compile_report" / "programs" / "traced_step.hlo").read_text()


def test_time_goes_to_the_innermost_scope_and_loops_are_not_counted_twice():
    events = [
        trace.Event("conv.1", 6.0),
        trace.Event("conv.1", 4.0),
        trace.Event("while.3", 9.0),
        trace.Event("fusion_2", 8.0),  # a kernel's name
        trace.Event("sort-3", 2.0),
        trace.Event("copy.9", 1.0),
        trace.Event("MemcpyH2D", 3.0),
    ]
    report = trace.summarise(trace.read_operations(TEXT), events, steps=2, step_ms=15.0)
    nothing = {"forward": 0.0, "recomputed": 0.0, "gradient": 0.0}
    assert report["stages"] == {
        "backbone": nothing | {"gradient": 5.0},
        "rpn": nothing | {"recomputed": 1.0},
        "roi_pooling": nothing | {"forward": 4.0},
        "other": nothing | {"forward": 0.5},
    }
    assert (report["unknown_ms"], report["busy_ms"], report["idle_ms"]) == (1.5, 12.0, 3.0)
    assert [(row["name"], row["ms"]) for row in report["operations"][:2]] == [
        ("conv.1", 5.0),
        ("fusion_2", 4.0),
    ]


def test_what_the_compiler_adds_belongs_to_what_it_was_fused_from_or_reads():
    operations = trace.read_operations(TEXT)
    assert "roi_pooling" in operations["copy.8"].scope and operations["copy.9"].scope == ""
    assert "optimizer" in operations["fusion.5"].scope and operations["fusion_5"].opcode == "fusion"


# As an error this would end the process, as jaxlib 0.12 makes the type in C++.
@pytest.mark.filterwarnings("ignore:builtin type event_stats has no __module__")
def test_the_profiler_records_the_operations_of_a_program():
    def loss(x, w):
        with jax.named_scope("backbone"):
            y = jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y @ w), x)
        with jax.named_scope("rpn"):
            return jnp.sort(y.ravel())[:9].sum()

    x = jnp.full((64, 64), 0.1)
    program = jax.jit(jax.grad(loss)).lower(x, x).compile()
    seconds, events = trace.record(lambda: jax.block_until_ready(program(x, x)), steps=2)
    report = trace.summarise(trace.read_operations(program.as_text()), events, 2, 1000 * seconds)
    assert set(report["stages"]) >= {"backbone", "rpn"}
    assert report["stages"]["backbone"]["forward"] > 0 and report["stages"]["backbone"]["gradient"] > 0
    assert report["unknown_ms"] == 0
