"""What reports add up, from small programs with known costs."""

import json
from pathlib import Path

import pytest

from mrcnn_jax.compile_report.chips import CHIPS
from mrcnn_jax.compile_report.hlo import Program
from mrcnn_jax.compile_report.report import Memory, read_report
from mrcnn_jax.compile_report.text import format_report
from mrcnn_jax.compile_report.work import matmul_operations, moved_bytes

MEMORY = Memory(arguments=2, results=3, aliased=1, temporary=5, code=7, limit=16)

PROGRAMS = Path(__file__).with_name("programs")
TPU = (PROGRAMS / "tpu_step.hlo").read_text()


@pytest.fixture(scope="module")
def report():
    return read_report(Program(TPU), MEMORY, CHIPS["v5e"], top=10)


def test_time_is_added_up_by_stage_and_by_what_it_is_for(report):
    backbone = report.stages["backbone"]
    assert (backbone.forward, backbone.recomputed, backbone.gradient) == pytest.approx((1.0, 2.0, 3.0))
    assert report.stages["proposals"].forward == pytest.approx(300 * 0.001)  # 300 trips
    assert list(report.stages) == ["backbone", "proposals", "roi_pooling"]  # in the model's order
    assert report.kinds["convolution"] == pytest.approx(1.0)
    # The kernel has no estimate: it reads and writes 8 x 128 values at the least.
    assert report.bounded == pytest.approx(2 * 8 * 128 * 4 / 819e9 * 1e3)
    assert report.milliseconds == pytest.approx(6.3 + report.bounded)


def test_loops_collectives_padding_types_and_kernels(report):
    (loop,) = report.loops
    assert (loop.stage, loop.trips, loop.entered) == ("proposals", 300, 1)
    gather, reduce = report.collectives
    assert (gather.kind, gather.stage, gather.count, gather.bytes) == ("all-gather", "rpn", 1, 8000)
    assert (reduce.kind, reduce.types, reduce.bytes) == ("all-reduce", "bf16, f32", 16000 + 16)
    # 4 columns take the place of 128; less than a megabyte is not listed
    assert report.padding == []
    assert report.matmuls == {"backbone": {"f32 x f32 -> bf16": 1}}
    assert report.kernels == {"tpu_custom_call": 1}


def test_memory_counts_what_takes_the_place_of_arguments_once(report):
    assert report.memory.total == 2 + 3 - 1 + 5 + 7


def test_problems_are_named(report):
    assert report.problems(("all-reduce",)) == [
        "has all-gather",
        "has a loop of 300 trips in proposals: jit(step)/jvp(proposals)/while",
    ]
    full = read_report(Program(TPU), Memory(20_000_000_000, 0, 0, 0, 0, 16_000_000_000), CHIPS["v5e"], top=0)
    assert full.problems(("all-reduce", "all-gather"))[0] == "needs 20.0 GB of 16.0 GB"


def test_a_report_as_text_and_as_json(report):
    text = format_report(report)
    assert "backbone                 1.000     2.000     3.000     6.000  95.2%" in text
    assert "300 trips, entered     1 x  proposals" in text
    values = json.loads(json.dumps(report.to_dict()))
    assert values["milliseconds"] == pytest.approx(6.3, rel=1e-3)
    assert values["memory"]["total"] == 16


def test_padding_is_listed_from_a_megabyte_on():
    text = TPU.replace("f32[1000,4]", "f32[10000,4]")
    (first, *_) = read_report(Program(text), MEMORY, CHIPS["v5e"], top=1).padding
    assert (first.type, first.amount) == ("f32[10000,4]", 10000 * 124 * 4)


GPU = (PROGRAMS / "gpu_kernels.hlo").read_text()


def test_operations_of_matmuls_and_of_convolutions_in_all_three_directions():
    program = Program(GPU)
    convolution = 2 * (2 * 50 * 64) * 128 * (3 * 3 * 256)
    for name in ("forward", "input", "filter"):
        assert matmul_operations(program, program.by_name[name]) == convolution, name
    assert matmul_operations(program, program.by_name["product"]) == 2 * 30 * 50 * 256
    assert matmul_operations(program, program.by_name["rows"]) == 0


def test_bytes_of_few_places_count_only_these():
    program = Program(GPU)
    rows = 50 * 256 * 4
    assert moved_bytes(program, program.by_name["rows"]) == rows + 4 * rows + 200
    assert moved_bytes(program, program.by_name["changed"]) == 3 * (rows + 200)
    forward = program.by_name["forward"]  # without the workspace
    assert moved_bytes(program, forward) == 2 * (2 * 50 * 64 * (256 + 128) + 128 * 9 * 256)


def test_a_gpu_has_the_larger_of_the_two_bounds():
    report = read_report(Program(GPU), MEMORY, CHIPS["h100"], top=20)
    longest = {row.type: row.amount for row in report.largest}
    bytes_of_forward = 2 * (2 * 50 * 64 * (256 + 128) + 128 * 9 * 256)
    at_bandwidth, at_peak = bytes_of_forward / 3352e9, 2 * 6400 * 128 * 2304 / 989e12
    assert longest["bf16[2,50,64,128], u8[1000000]"] == pytest.approx(1e3 * max(at_bandwidth, at_peak))
    assert report.bounded == pytest.approx(report.milliseconds)
    assert report.kernels["__cudnn$convForward"] == 1
