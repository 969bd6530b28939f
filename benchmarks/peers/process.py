"""Another interpreter, with torchvision, that does the same works."""

import contextlib
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.timing import Work

_PROGRAM = Path(__file__).with_name("torchvision_workloads.py")


class Peer:
    """A process that has prepared one work, and does it when asked to.

    ``system`` says what it is, and on which device. If it has no pycocotools it takes those of this process.
    Raises ``ValueError`` if the interpreter cannot do the work, with its last words on the terminal.
    """

    def __init__(self, python: str, work: Work) -> None:
        self._python = python
        self._directory = tempfile.TemporaryDirectory()
        arrays = Path(self._directory.name) / "arrays.npz"
        np.savez(arrays, allow_pickle=False, **work.arrays())
        pycocotools = importlib.util.find_spec("pycocotools")
        packages = str(Path(pycocotools.origin).parents[1]) if pycocotools and pycocotools.origin else ""
        request = {
            "work": work.name,
            "settings": work.settings,
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
        """Of doing the work so often."""
        return self._ask({"times": times})["seconds"]

    def peak_bytes(self) -> int:
        """The most memory that doing the work once more takes, beside what is there before."""
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
                self._process.stdin.close()  # which ends one that answered something else
            code = self._process.wait()
            self._close()
            raise ValueError(f"--peer={self._python}: no answer; ended with exit code {code}") from error

    def _close(self) -> None:
        self._process.kill()
        with self._process:  # which closes its pipes, and waits
            pass
        self._directory.cleanup()
