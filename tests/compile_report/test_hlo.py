"""Programs read from text, in the forms in which a TPU's and a GPU's compiler print them."""

from pathlib import Path

import pytest

from mrcnn_jax.compile_report.hlo import ArrayType, Program

PROGRAMS = Path(__file__).with_name("programs")
TPU = (PROGRAMS / "tpu_loops.hlo").read_text()


def times_of(program):
    return {run.operation.name: (run.times, run.known) for run in program.runs()}


def test_operations_in_loops_run_as_often_as_the_condition_says():
    times = times_of(Program(TPU))
    assert times["copy.1"] == (1, True)
    assert times["sum.1"] == (5, True)
    assert times["half.1"] == (5, False)  # at least: the trips of the loop inside are not known
    assert "rows.1" not in times  # part of a fusion


def test_trips_that_the_compiler_states():
    program = Program(
        TPU.replace("body=%inner.1", 'body=%inner.1, backend_config={"known_trip_count":{"n":"3"}}')
    )
    assert times_of(program)["half.1"] == (15, True)


def test_what_an_operation_says_of_itself():
    program = Program(TPU)
    total, rows = program.by_name["sum.1"], program.by_name["rows.2"]
    assert (total.opcode, total.operands, total.cycles) == ("add", ("arg.4", "arg.4"), 150)
    assert (total.scope, total.bytes) == ("jit(f)/while/body/add", 128)
    assert (rows.opcode, rows.called, rows.cycles) == ("fusion", ["fused.1"], None)
    assert [part.opcode for part in program.parts(rows)] == ["parameter", "parameter", "gather"]
    assert [str(array) for array in program.by_name["loop.1"].arrays] == ["s32[]", "f32[8,4]"]
    assert total.config == {"window_config": {"estimated_cycles": "150"}}


@pytest.mark.parametrize(
    ("array", "size", "padded"),
    [
        (ArrayType("f32", (100, 4), "1,0:T(8,128)"), 1600, 104 * 128 * 4),
        (ArrayType("f32", (100, 4), "0,1:T(4,128)"), 1600, 128 * 4 * 4),  # the other way round
        (ArrayType("bf16", (2, 3, 128), "2,1,0:T(8,128)(2,1)S(1)"), 1536, 2 * 8 * 128 * 2),
        (ArrayType("pred", (5,), "0"), 5, 5),  # a GPU has no tiles
        (ArrayType("s32", (), ":T(128)"), 4, 4),
        (ArrayType("f8e4m3fn", (3,), "0"), 3, 3),
    ],
)
def test_bytes_with_and_without_padding(array, size, padded):
    assert (array.bytes, array.padded_bytes) == (size, padded)


def test_the_longest_branch_of_a_conditional_counts():
    text = """\
%yes (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  %twice = f32[2]{0} add(%a, %a)
  ROOT %result = f32[2]{0} multiply(%a, %twice)
}

%no (b: f32[2]) -> f32[2] {
  %b = f32[2]{0} parameter(0)
  ROOT %same = f32[2]{0} copy(%b)
}

ENTRY %main (p: pred[], x: f32[2]) -> f32[2] {
  %p = pred[] parameter(0)
  %x = f32[2]{0} parameter(1)
  ROOT %choice = f32[2]{0} conditional(%p, %x, %x), branch_computations={%no, %yes}
}
"""
    times = times_of(Program(text))
    assert {"twice", "result"} < set(times)
    assert "same" not in times


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        Program("module @jit_f {\n}")
