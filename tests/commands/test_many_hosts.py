"""One run by two processes of four devices each, started as on two hosts, against one process with eight."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.inference.partial_proposals import PartialProposals, begin_proposals
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.proposals import ImageProposals, read_made_with, read_proposals
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, load_weights
from mrcnn_jax.runs.description import write_run

ROOT = Path(__file__).parents[2]
STEPS, HALF = 4, 2
PATIENCE = 300  # seconds
SPEED = ("images_per_second", "waiting_for_data")

CONFIG_FILE = """
from mrcnn_jax.config.io import from_dict

def get_config():
    return from_dict({values!r})
"""

# mrcnn-jax train, with process 1 killed when it is to take its fourth step.
DYING = f"""
import os, signal
import jax
from mrcnn_jax.commands import run
from mrcnn_jax.training import loop

compile_step = loop.compile_step

def compile_dying(*arguments):
    take_step = compile_step(*arguments)

    def run(state, batch):
        if jax.process_index() == 1 and int(state.step) == {STEPS} - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(state, batch)

    return run

loop.compile_step = compile_dying
run("train")
"""


class Processes:
    """Processes started together, and what they print."""

    def __init__(self, directory: Path, commands: list[list[str]]) -> None:
        self._files = [directory / f"output-{time.monotonic_ns()}-{i}" for i in range(len(commands))]
        flags = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // len(commands)} {flags}",
            "JAX_COMPILATION_CACHE_DIR": str(directory / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.all = []
        # Tests may run in the background, where Ctrl-C is ignored, and processes would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        for command, path in zip(commands, self._files, strict=True):
            with path.open("w") as file:
                self.all.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        cwd=directory, env=environment, stdout=file, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
        signal.signal(signal.SIGINT, before)

    def wait(self) -> list[int]:
        """Their exit codes."""
        return [process.wait(PATIENCE) for process in self.all]

    def output(self, process: int) -> str:
        return self._files[process].read_text()


Start = Callable[..., Processes]


@pytest.fixture(scope="module")
def directory(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts")
    make_shapes(path / "shapes", train=20, val=5, image_size=64, seed=0)
    values = asdict(tiny_config)
    values["data"]["root"] = "shapes"
    values["model"]["keypoint"] = False
    values["train"] |= {
        "seed": 2,
        "steps": STEPS,
        "log_every": 1,
        "checkpoint_every": HALF,
        "eval_every": STEPS,
    }
    # Of so many, and with this seed, one or another is right.
    values["test"] |= {"score_threshold": 0.0, "detections": values["test"]["candidates"]}
    (path / "tiny.py").write_text(CONFIG_FILE.format(values=values))
    (path / "dying.py").write_text(DYING)
    return path


@pytest.fixture(scope="module")
def start(directory: Path) -> Iterator[Start]:
    """Starts a command, once with eight devices or twice with four; what still runs at the end is killed."""
    started: list[Processes] = []

    def run(command: str, *arguments: str, count: int = 2, of_second: tuple[str, ...] = ()) -> Processes:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        joining = [
            [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={process}"]
            for process in range(count)
        ]
        program = [command] if command.endswith(".py") else ["-m", "mrcnn_jax", command]
        commands = [
            [*program, *arguments, *(joining[process] if count > 1 else []), *(of_second if process else [])]
            for process in range(count)
        ]
        started.append(Processes(directory, commands))
        return started[-1]

    yield run
    for process in (process for processes in started for process in processes.all):
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def alone(start: Start, directory: Path) -> Path:
    processes = start("train", "--config=tiny.py", "--workdir=one", count=1)
    assert processes.wait() == [0], processes.output(0)
    return directory / "one"


@pytest.fixture(scope="module")
def by_two(start: Start, directory: Path) -> Path:
    """The run by two processes, of which one dies, and which both then go on with."""
    processes = start("dying.py", "--config=tiny.py", "--workdir=two")
    first, second = processes.wait()
    assert second == -signal.SIGKILL and first not in (0, None)
    assert "8 device(s) of 2 processes" in processes.output(0)
    assert f"step {STEPS - 1}/{STEPS}" in processes.output(0)
    # Whichever comes first: the connection is found closed, or JAX misses signs of life.
    assert re.search("error: process 0 cannot reach another|another task died", processes.output(0))
    assert load_weights(directory / "two")[0] == HALF

    processes = start("train", "--config=tiny.py", "--workdir=two")
    assert processes.wait() == [0, 0], processes.output(0) + processes.output(1)
    assert f"continuing from step {HALF}" in processes.output(0)
    assert not re.search(r"step +\d+/", processes.output(1))  # the first reports for both
    return directory / "two"


def scalars(workdir: Path) -> dict[tuple[int, str], float]:
    """What a run wrote for TensorBoard last, by step and name, apart from its speed."""
    values = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += length + 16
            values |= {
                (event.step, value.tag): value.simple_value
                for value in event.summary.value
                if value.HasField("simple_value") and value.tag.split("/")[1] not in SPEED
            }
    return values


@pytest.mark.slow
def test_losses_and_metrics_equal_one_process_even_after_a_crash(alone: Path, by_two: Path) -> None:
    wanted, found = scalars(alone), scalars(by_two)
    assert found.keys() == wanted.keys()
    assert {step for step, name in wanted if name == "train/mask"} == {1, 2, 3, 4}
    assert wanted[STEPS, "validation/bbox_AP"] > 0
    for step, name in wanted:
        # The hosts add up gradients in another order.
        tolerance = 0 if name.startswith("validation/") else 1e-4 if name == "train/gradient_norm" else 2e-5
        np.testing.assert_allclose(
            found[step, name], wanted[step, name], rtol=tolerance, err_msg=f"step {step}: {name}"
        )


@pytest.mark.slow
def test_evaluation_equals_one_process(by_two: Path, start: Start, directory: Path) -> None:
    processes = start("evaluate", "--workdir=two", "--batch_size=4", "--output=scores-two.json")
    assert processes.wait() == [0, 0], processes.output(0) + processes.output(1)
    assert "written to scores-two.json" in processes.output(0) and "AP" not in processes.output(1)
    one = start("evaluate", "--workdir=two", "--batch_size=8", "--output=scores-one.json", count=1)
    assert one.wait() == [0], one.output(0)
    wanted, found = (json.loads((directory / f"scores-{name}.json").read_text()) for name in ("one", "two"))
    assert found == wanted


@pytest.fixture(scope="module")
def train_large(directory: Path, start: Start) -> Callable[..., dict[tuple[int, str], float]]:
    """What a run wrote whose images of 256 x 256 pixels are each shared by so many of eight devices."""
    make_shapes(directory / "large", train=8, val=4, image_size=256, seed=0)
    sizes = ["train_short_sides=(256,)", "test_short_side=256", "long_side=256", "canvases=((256,256),)"]
    flags = [*(f"--config.data.{size}" for size in sizes), "--config.data.root=large"]
    flags += [
        "--config.train.batch_size=4",
        f"--config.train.steps={HALF}",
        f"--config.train.eval_every={HALF}",
    ]

    def train(shared_by: int, count: int) -> dict[tuple[int, str], float]:
        workdir = f"large-{shared_by}-{count}"
        processes = start(
            "train", "--config=tiny.py", f"--workdir={workdir}", *flags, "--config.test.batch_size=2",
            f"--config.train.spatial_devices={shared_by}", "--config.test.spatial_devices=2", count=count,
        )  # fmt: skip
        assert processes.wait() == [0] * count, "".join(map(processes.output, range(count)))
        assert f", {shared_by} an image" in processes.output(0)
        return scalars(directory / workdir)

    return train


@pytest.mark.slow
def test_devices_of_one_or_of_both_processes_share_images(
    train_large: Callable[..., dict[tuple[int, str], float]],
) -> None:
    wanted = train_large(shared_by=2, count=1)
    assert {step for step, name in wanted if name == "train/mask"} == {1, 2}
    for shared_by in (2, 8):
        found = train_large(shared_by, count=2)
        assert found.keys() == wanted.keys()
        for step, name in wanted:
            tolerance = 1e-4 if name == "train/gradient_norm" else 2e-5
            np.testing.assert_allclose(
                found[step, name], wanted[step, name], rtol=tolerance, err_msg=f"{shared_by}, {step}: {name}"
            )


@pytest.fixture(scope="module")
def rpn(tiny_config: Config, directory: Path) -> str:
    """A run of a region proposal network that has not been trained."""
    model = dataclasses.replace(tiny_config.model, box=False, mask=False, keypoint=False)
    data = dataclasses.replace(tiny_config.data, root="shapes")
    config = dataclasses.replace(tiny_config, model=model, data=data)
    blueprint = make_blueprint(model, num_classes=4, num_keypoints=0)
    write_run(directory / "rpn", config, Categories(ids=(1, 2, 3, 4), names=tuple("abcd")))
    with Checkpoints(directory / "rpn", keep=1) as checkpoints:
        checkpoints.save(0, blueprint.initialize(jax.random.key(0)))
    return "rpn"


@pytest.mark.slow
def test_proposals_equal_one_process_even_after_an_interruption(
    rpn: str, start: Start, directory: Path
) -> None:
    """Each batch has the same four devices; the two have unequal shares of five batches."""
    arguments = ("propose", f"--workdir={rpn}", "--split=train", "--batch_size=4")
    one = start(*arguments, "--output=one.npz", count=1)
    assert one.wait() == [0], one.output(0)
    begin_proposals(directory / "two.npz", read_made_with(directory / "one.npz") or {})
    whole = read_proposals(directory / "one.npz")
    with PartialProposals(directory / "two.npz", process=5) as partial:
        for row in range(6):
            rows = slice(whole.offsets[row], whole.offsets[row + 1])
            proposals = ImageProposals(whole.boxes[rows], whole.objectness[rows])
            partial.append(int(whole.ids[row]), proposals)
    two = start(*arguments, "--output=two.npz")
    assert two.wait() == [0, 0], two.output(0) + two.output(1)
    assert "6 of 20 images are done already" in two.output(0)
    assert "written to two.npz" in two.output(0) and "proposals" not in two.output(1)
    assert (directory / "two.npz").read_bytes() == (directory / "one.npz").read_bytes()
    assert not (directory / "two.npz.partial").exists()
    two = start(*arguments, "--output=two.npz")
    assert two.wait() == [0, 0] and "is already there" in two.output(0)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_makes_all_save_and_exit(
    by_two: Path, start: Start, directory: Path, number: signal.Signals, name: str
) -> None:
    processes = start(
        "train", "--config=tiny.py", f"--workdir=stopped-{name}", "--config.train.steps=100000",
        "--config.train.checkpoint_every=100000", "--config.train.eval_every=0",
    )  # fmt: skip
    end = time.monotonic() + PATIENCE
    while "step      1/" not in processes.output(0) and processes.all[0].poll() is None:
        assert time.monotonic() < end, processes.output(0)
        time.sleep(0.1)
    # A scheduler may send SIGTERM to one process; a terminal sends Ctrl-C to all.
    for process in processes.all[1:] if number == signal.SIGTERM else processes.all:
        process.send_signal(number)
    assert processes.wait() == [128 + number] * 2, processes.output(0) + processes.output(1)
    step, _ = load_weights(directory / f"stopped-{name}")
    assert f"stopped after step {step} by {name}" in processes.output(0)


@pytest.mark.slow  # tests/distributed has the same without processes
def test_different_settings_are_an_error(start: Start, directory: Path) -> None:
    arguments = ("train", "--config=tiny.py", "--workdir=unlike")
    processes = start(*arguments, of_second=("--config.train.learning_rate=0.5",))
    assert processes.wait() == [1, 1]
    for process in range(2):
        assert "error: the processes were started with different settings:\n" in processes.output(process)
        assert "train.learning_rate: 0.5 in process 1, 0.02 in process 0\n" in processes.output(process)
        assert "Traceback" not in processes.output(process)
    assert not (directory / "unlike").exists()


@pytest.mark.slow  # starts processes
def test_an_error_in_one_process_stops_all(start: Start) -> None:
    arguments = ("train", "--config=tiny.py", "--workdir=unlike")
    processes = start(*arguments, of_second=("--config.data.root=nowhere",))
    assert processes.wait() == [1, 1]
    assert "error: process 1: nowhere: there is no such folder (data.root)\n" in processes.output(0)
    assert "error: nowhere: there is no such folder (data.root)\n" in processes.output(1)


@pytest.mark.slow  # tests/distributed has the same without processes
def test_host_flags_must_be_given_together(start: Start) -> None:
    processes = start("train", "--config=tiny.py", "--workdir=x", "--process_id=0", count=1)
    assert processes.wait() == [1]
    assert "error: --coordinator, --num_processes and --process_id must be given together" in (
        processes.output(0)
    )
