import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mrcnn_jax.many_images.host import cache_folder, compile_once
from tests.run_command import ROOT

TAKE = """
import json, os, sys
from mrcnn_jax.many_images.host import take_cores
os.sched_setaffinity(0, json.loads(sys.argv[2]))
print(json.dumps([take_cores(int(sys.argv[1])), sorted(os.sched_getaffinity(0))]), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="Linux with two cores"
)
def test_each_process_takes_cores_of_its_own():
    cores = sorted(os.sched_getaffinity(0))[:2]
    processes = []

    def start(count):
        """The cores that a process takes of the two, and those that it may then use."""
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", TAKE, str(count), json.dumps(cores)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
        return json.loads(processes[-1].stdout.readline())

    def end(process):
        process.kill()
        process.wait()

    try:
        first, second = [[cores[0]]] * 2, [[cores[1]]] * 2
        assert start(1) == first
        assert start(2) == [[], cores]  # one is too few; it is given back
        assert [start(1), start(1)] == [second, [[], cores]]
        end(processes[0])
        assert start(1) == first
        for process in processes:
            end(process)
        assert [start(2), start(1)] == [[cores, cores], [[], cores]]
    finally:
        for process in processes:
            end(process)
            process.stdin.close(), process.stdout.close()


def test_only_the_first_compiles_alone(tmp_path):
    calls = []
    for _ in range(2):
        compile_once("x", str(tmp_path / "cache"), lambda: calls.append(sorted(os.listdir(tmp_path))))
    assert calls == [[], ["cache"]] and os.listdir(tmp_path / "cache") == ["x.compiled"]

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        compile_once("y", str(tmp_path / "cache"), fail)
    assert os.listdir(tmp_path / "cache") == ["x.compiled"]


@pytest.mark.parametrize("cache", ["", None, "gs://bucket/cache", "file/cache"])
def test_a_cache_that_is_in_no_folder_gets_no_file(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    calls = []
    for _ in range(2):
        compile_once("x", cache, lambda: calls.append(1))
    assert calls == [1, 1] and os.listdir(tmp_path) == ["file"]


def test_without_a_home_directory_files_are_among_the_temporary_ones(tmp_path, monkeypatch):
    assert cache_folder("sent/x") == Path.home() / ".cache" / "mrcnn_jax" / "sent" / "x"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    own = tmp_path / "tmp" / f"mrcnn_jax-{os.getuid()}"
    assert cache_folder("sent/x") == own / "sent" / "x" and (own / "sent" / "x").is_dir()
    assert own.stat().st_mode & 0o777 == 0o700
    compile_once("x", str(tmp_path / "cache"), lambda: None)  # whose lock is there
    assert len(list((own / "locks").rglob("*.lock"))) == 1
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    own.rename(tmp_path / "tmp" / "mrcnn_jax-12345")
    with pytest.raises(PermissionError, match="belongs to another user"):
        cache_folder("sent/x")
