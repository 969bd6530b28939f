"""Runs workloads with torchvision in another interpreter."""

import contextlib
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mrcnn_jax.benchmarks.timing import Workload

_PROGRAM = Path(__file__).with_name("torchvision_workloads.py")


class Peer:
    """A process that prepares one workload and runs it on request.

    ``system`` names its version and device. ``precision`` is that of float32 on a GPU: "default", with TF32,
    or "highest", without. Without pycocotools of its own, it uses this process's. Raises ``ValueError`` if
    the interpreter cannot run the workload; its error messages go to the terminal.
    """

    def __init__(self, python: str, workload: Workload, *, precision: str = "default") -> None:
        self._python = python
        self._directory = tempfile.TemporaryDirectory()
        arrays = Path(self._directory.name) / "arrays.npz"
        np.savez(arrays, allow_pickle=False, **workload.arrays())
        pycocotools = importlib.util.find_spec("pycocotools")
        packages = str(Path(pycocotools.origin).parents[1]) if pycocotools and pycocotools.origin else ""
        request = {
            "workload": workload.name,
            "settings": workload.settings,
            "precision": precision,
            "arrays": str(arrays),
            "packages": packages,
        }
        try:
            self._process = subprocess.Popen(
                [python, str(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            self._directory.cleanup()
            raise ValueError(f"--peer={python}: {error.strerror}") from error
        answer = self._ask(request)
        self.system = f"torchvision {answer['version']} on {answer['device']}"

    def seconds(self, times: int) -> float:
        """The seconds that ``times`` runs of the workload take."""
        return self._ask({"times": times})["seconds"]

    def peak_bytes(self) -> int:
        """The peak memory in use during one more run of the workload, in bytes."""
        return self._ask({"peak": True})["bytes"]

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()  # ends a process that gave another answer
            code = self._process.wait()
            self._close()
            raise ValueError(f"--peer={self._python}: no answer; ended with exit code {code}") from error

    def _close(self) -> None:
        self._process.kill()
        with self._process:  # closes its pipes, and waits
            pass
        self._directory.cleanup()
