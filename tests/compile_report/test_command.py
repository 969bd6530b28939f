"""``mrcnn-jax compile_report`` where no compiler for other chips is installed."""

from importlib.util import find_spec

import jax
import pytest

from mrcnn_jax.compile_report import cache
from tests.run_command import run_here


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --topology is missing; see --help"),
        (["--topology=v9"], "error: topology 'v9': must be a chip (v4, v5e, v5p, v6e, a100, h100, h200)"),
        (["--topology=v5e", "--json=nowhere/report.json"], "there is no folder nowhere"),
        (["--fill_cache", "--topology=v5e"], "error: --fill_cache compiles for this machine's devices"),
    ],
)
def test_mistakes_are_one_line(tmp_path, flags, message):
    outcome = run_here("compile_report", "--config=shapes", *flags, directory=tmp_path)
    assert outcome.returncode == 1
    assert message in outcome.stderr


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is installed")
def test_a_missing_compiler_is_named(tmp_path):
    outcome = run_here("compile_report", "--config=shapes", "--topology=v5e", directory=tmp_path)
    assert outcome.returncode == 1
    assert "it takes libtpu of the same version of JAX" in outcome.stderr


def test_filling_the_cache_says_what_is_compiled_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "fill_cache", lambda *_, **__: iter([("train step for canvas 128x128", 61.4)]))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")  # then the command leaves JAX's setting
    outcome = run_here("compile_report", "--config=shapes", "--fill_cache", directory=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    folder = jax.config.jax_compilation_cache_dir
    assert outcome.stdout == f"train step for canvas 128x128: 61 s\ncompiled programs are in {folder}\n"
