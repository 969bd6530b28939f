"""``mrcnn-jax compile_report`` where no compiler for other chips is installed."""

from importlib.util import find_spec

import pytest

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
