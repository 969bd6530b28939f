"""benchmarks/roi.py, run in this process: its rows, and the misalignment."""

import importlib
import sys

import pytest
from absl import flags
from PIL import Image

from tests.run_command import forget_flags


@pytest.fixture(scope="module")
def benchmark():
    known = set(flags.FLAGS)
    module = importlib.import_module("mrcnn_jax.benchmarks.roi")
    flags.FLAGS(["roi.py", "--turns=1", "--scale=0.02"])
    yield module
    forget_flags(set(flags.FLAGS) - known)
    del sys.modules["mrcnn_jax.benchmarks.roi"]


def test_a_row_for_every_program(benchmark, monkeypatch, capsys):
    case = benchmark.Case("align mean", gradient=True, regions=2, channels=3, output=2)
    monkeypatch.setattr(benchmark, "cases", lambda study: [case])
    (row,) = benchmark.measure("regions", 1e9)
    # A map of 4 x 6 cells and 2 x 2 x 2 bins, with 3 channels of 4 bytes; twice because of the gradient.
    assert row["least_bytes"] == 2 * (4 * 6 + 2 * 2 * 2) * 3 * 4
    assert row["copy"] == pytest.approx(row["least_bytes"] / row["ms"] * 1e3 / 1e9)
    printed = capsys.readouterr().out.splitlines()[-1].split()
    assert printed[:8] == ["RoIAlign", "mean,", "2", "2", "16-512", "3", "2", "both"]


def test_titles_by_hand(benchmark):
    cases = benchmark.Case("align max", 0, "einsum"), benchmark.Case("warp mean"), benchmark.Case("pool")
    titles = ["RoIAlign max, adaptive, einsum", "RoIWarp mean, 2", "RoIPool"]
    assert [case.title() for case in cases] == titles


@pytest.mark.parametrize("pooling", ["warp mean", "pool"])
def test_roi_warp_and_roi_pool_have_rows(benchmark, pooling, monkeypatch):
    case = benchmark.Case(pooling, gradient=True, regions=2, channels=3, output=2)
    monkeypatch.setattr(benchmark, "cases", lambda study: [case])
    (row,) = benchmark.measure("regions", 1e9)
    assert row["pooling"] == pooling and row["ms"] > 0


def test_studies_compare_all_ops_with_and_without_gradient(benchmark):
    for study in benchmark.STUDIES[:-1]:
        found = benchmark.cases(study)
        assert len(set(found)) == len(found)
        assert {(case.pooling.split()[0], case.gradient) for case in found} == {
            (pooling, gradient) for pooling in ("align", "warp", "pool") for gradient in (False, True)
        }


def test_all_but_roi_align_are_misaligned_by_a_fraction_of_the_stride(benchmark, tmp_path):
    rows = benchmark.misalignment()
    assert [row["stride"] for row in rows] == [4, 8, 16, 32]
    for row in rows:
        assert row["align_largest"] < 1e-2
        assert row["half_cell_mean"] == pytest.approx(row["stride"] / 2, rel=1e-2)
        assert 0.2 * row["stride"] < row["pool_mean"] < 0.4 * row["stride"]
        # Rounding moves a corner by at most half a cell, and a bin's ends to whole cells, by up to another.
        assert row["pool_mean"] < row["pool_largest"] < 1.5 * row["stride"]
        # RoIWarp's bins have no rounding of their own, but the region is up to a cell longer on either side.
        assert 0.2 * row["stride"] < row["warp_mean"] < 0.4 * row["stride"]
        assert row["warp_mean"] < row["warp_largest"] < row["stride"]
    benchmark.draw({"misalignment": rows}, tmp_path / "roi.png")
    with Image.open(tmp_path / "roi.png") as picture:
        assert picture.size == (480, 340)
