import json
import os
import subprocess
import sys

import pytest

from mrcnn_jax.many_images.host import compile_once
from tests.run_command import ROOT

TAKE = """
import json, os, sys
from mrcnn_jax.many_images.host import take_cores
print(json.dumps([take_cores(1), sorted(os.sched_getaffinity(0))]), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_each_process_takes_cores_of_its_own():
    cores = sorted(os.sched_getaffinity(0))
    processes = []

    def start():
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", TAKE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
        return json.loads(processes[-1].stdout.readline())

    try:
        assert [start() for _ in cores[:2]] == [[[core], [core]] for core in cores[:2]]
        if len(cores) == 2:
            assert start() == [[], cores]  # none is left
            processes[0].kill()
            processes[0].wait()
            assert start() == [[cores[0]], [cores[0]]]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close(), process.stdout.close()


def test_only_the_first_compiles_alone(tmp_path):
    calls = []
    for _ in range(2):
        compile_once("x", tmp_path / "cache", lambda: calls.append(sorted(os.listdir(tmp_path))))
    assert calls == [[], ["cache"]] and os.listdir(tmp_path / "cache") == ["x.compiled"]

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        compile_once("y", tmp_path / "cache", fail)
    assert os.listdir(tmp_path / "cache") == ["x.compiled"]
