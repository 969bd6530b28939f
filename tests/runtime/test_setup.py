import os
import subprocess
import sys

import pytest

from mrcnn_jax.runtime import setup as module
from mrcnn_jax.runtime.setup import setup

PROGRAM = (
    "import mrcnn_jax\n"
    "mrcnn_jax.setup()\n"
    "import jax, jax.numpy as jnp\n"
    "print(jax.config.jax_compilation_cache_dir, jnp.ones(2).sum())\n"
)


def test_sets_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    cache = tmp_path / ".cache" / "mrcnn_jax" / "xla" / module._machine_type()
    assert (done.stdout, done.stderr) == (f"{cache} 2.0\n", "")


def test_the_users_settings_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    setup(keep_memory=False)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("platforms", "keep_memory", "kept"),
    [("cpu", True, True), ("cpu", False, False), ("cuda,cpu", True, False)],
)
def test_freed_memory_is_kept_only_on_a_cpu(monkeypatch, tmp_path, platforms, keep_memory, kept):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    calls = []
    monkeypatch.setattr(module, "keep_freed_memory", lambda: calls.append(True))
    setup(keep_memory=keep_memory)
    assert bool(calls) == kept
