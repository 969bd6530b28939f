import os
import subprocess
import sys

import pytest

from mrcnn_jax.runtime import setup
from mrcnn_jax.runtime.setup import setup_jax

PROGRAM = (
    "import os\n"
    "from mrcnn_jax.runtime.setup import setup_jax\n"
    "setup_jax()\n"
    "import jax, jax.numpy as jnp\n"
    "print(os.environ.get('XLA_FLAGS'), jax.config.jax_compilation_cache_dir, jnp.ones(2).sum())\n"
)


def test_sets_the_flag_and_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    cache = tmp_path / ".cache" / "mrcnn_jax" / "xla" / setup._machine_type()
    assert done.stderr == ""
    assert done.stdout == (
        "--xla_force_host_platform_device_count=2 --xla_cpu_experimental_ynn_fusion_type= "
        "--xla_cpu_enable_concurrency_optimized_scheduler=false "
        f"--xla_disable_hlo_passes=cse_barrier_expander --xla_backend_optimization_level=2 {cache} 2.0\n"
    )


def test_the_users_settings_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=invalid")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    setup_jax(keep_memory=False)
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_experimental_ynn_fusion_type=invalid"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)


@pytest.mark.parametrize(("version", "platforms"), [("0.11.0", "cpu"), ("0.10.2", "cuda,cpu")])
def test_no_flag_for_untested_versions_and_platforms(monkeypatch, tmp_path, version, platforms):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda package: version)
    setup_jax(keep_memory=False)
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x"


@pytest.mark.parametrize(
    ("platforms", "keep_memory", "kept"),
    [("cpu", True, True), ("cpu", False, False), ("cuda,cpu", True, False)],
)
def test_freed_memory_is_kept_only_on_a_cpu(monkeypatch, tmp_path, platforms, keep_memory, kept):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    calls = []
    monkeypatch.setattr(setup, "keep_freed_memory", lambda: calls.append(True))
    setup_jax(keep_memory=keep_memory)
    assert bool(calls) == kept
