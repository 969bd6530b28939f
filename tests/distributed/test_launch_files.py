"""The files in docs/launch and the table of batch sizes in docs/multi_host.md, without a cluster.

The program accepts their commands, and their names, numbers of processes and schedules agree.
"""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from mrcnn_jax.config import TrainConfig
from tests.run_command import run_here

DOCS = Path(__file__).parents[2] / "docs"
LAUNCHED = ("jobset_gpu", "jobset_tpu", "skypilot")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCS / "launch" / f"{name}.yaml").read_text())


def job(jobset: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def container(jobset: dict[str, Any]) -> dict[str, Any]:
    (found,) = job(jobset)["template"]["spec"]["containers"]
    return found


def arguments(name: str) -> list[str]:
    """The command after ``mrcnn-jax``, as the first process gets it."""
    launched = read(name)
    if name == "skypilot":
        given = {
            '"$(echo "$SKYPILOT_NODE_IPS" | head -n1):9876"': "10.0.0.1:9876",
            '"$SKYPILOT_NUM_NODES"': str(launched["num_nodes"]),
            '"$SKYPILOT_NODE_RANK"': "0",
        }
        text = launched["run"]
        for shell, value in given.items():
            assert shell in text
            text = text.replace(shell, value)
        command = shlex.split(text.replace("\\\n", ""))
        assert command[:2] == ["exec", ".venv/bin/mrcnn-jax"]  # exec: SIGTERM reaches it
        return command[2:]
    program, *rest = container(launched)["command"] + container(launched)["args"]
    assert program == "mrcnn-jax"
    return [argument.replace("$(JOB_COMPLETION_INDEX)", "0") for argument in rest]


def option(name: str, flag: str) -> str:
    (value,) = (a.partition("=")[2] for a in arguments(name) if a.startswith(f"--{flag}="))
    return value


def devices(name: str) -> int:
    """The number of GPUs or chips that the file asks for."""
    launched = read(name)
    if name == "skypilot":
        return launched["num_nodes"] * int(launched["resources"]["accelerators"].partition(":")[2])
    (count,) = container(launched)["resources"]["limits"].values()
    return job(launched)["completions"] * count


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_program_accepts_the_command(name, tmp_path):
    # All flags and values are right: all that is missing is the data.
    outcome = run_here(*arguments(name), directory=tmp_path)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: /shared/coco: there is no such folder (data.root)\n")


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_flag_that_the_program_does_not_have_would_be_noticed(name, tmp_path):
    outcome = run_here(*arguments(name), "--config.train.batch=1", directory=tmp_path)
    assert outcome.returncode == 1 and "unknown field config.train.batch" in outcome.stderr


def test_process_0_is_found_by_its_name():
    jobset = read("jobset_gpu")
    host, port = option("jobset_gpu", "coordinator").split(":")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    # JobSet names a pod JOBSET-JOB-(number of the job)-(number of the pod).SUBDOMAIN.
    subdomain = jobset["spec"]["network"]["subdomain"]
    assert jobset["spec"]["network"]["enableDNSHostnames"]
    assert host == f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{subdomain}"
    assert container(jobset)["ports"] == [{"containerPort": int(port)}]


def test_every_pod_is_a_process():
    for name in ("jobset_gpu", "jobset_tpu"):
        spec = job(read(name))
        assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert int(option("jobset_gpu", "num_processes")) == job(read("jobset_gpu"))["completions"]
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in container(read("jobset_gpu"))["args"]
    # On TPUs JAX detects them.
    assert not any("process" in argument for argument in container(read("jobset_tpu"))["args"])


def test_the_hosts_of_a_tpu_slice_are_all_used():
    topology = job(read("jobset_tpu"))["template"]["spec"]["nodeSelector"][
        "cloud.google.com/gke-tpu-topology"
    ]
    assert devices("jobset_tpu") == math.prod(map(int, topology.split("x")))


@pytest.mark.parametrize("name", ("jobset_gpu", "jobset_tpu"))
def test_all_pods_are_started_again_together(name):
    jobset, spec = read(name), job(read(name))
    assert spec["backoffLimit"] == 0 and spec["template"]["spec"]["restartPolicy"] == "Never"
    stopped, evicted = spec["podFailurePolicy"]["rules"]
    assert stopped["action"] == evicted["action"] == "FailJob"
    assert stopped["onExitCodes"]["values"] == [143]
    assert stopped["onExitCodes"]["containerName"] == container(jobset)["name"]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert read("skypilot")["resources"]["job_recovery"]["recover_on_exit_codes"] == [143]


@pytest.mark.parametrize("name", ("jobset_gpu", "jobset_tpu"))
def test_mounted_volumes_exist_and_hold_what_the_command_names(name):
    pod = job(read(name))["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(read(name))["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    for flag in ("workdir", "config.data.root", "config.model.backbone_weights"):
        assert option(name, flag).startswith(f"{mounts['shared']}/")


def table() -> list[dict[str, Any]]:
    """The rows of the table of batch sizes: the values of ``train``, and its first cells under "images"."""
    lines = (DOCS / "multi_host.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *rows = cells
    names = [name.partition(".")[2] for name in head[2:]]
    return [
        {"images": row[0], "example": row[1]} | dict(zip(names, map(yaml_value, row[2:]), strict=True))
        for row in rows
    ]


def yaml_value(text: str) -> Any:
    return tuple(yaml.safe_load(f"[{text[1:-1]}]")) if text.startswith("(") else yaml.safe_load(text)


def test_the_table_begins_with_the_default():
    settings = {name: value for name, value in table()[0].items() if name not in ("images", "example")}
    assert settings == {name: getattr(TrainConfig(), name) for name in settings}


def test_steps_are_divided_by_what_the_batch_is_multiplied_with():
    default = TrainConfig()
    for row in table():
        factor = row["batch_size"] / default.batch_size
        longer = 1.5 if "1.5 times" in row["images"] else 1.0
        assert row["steps"] == pytest.approx(longer * default.steps / factor, abs=0.5)
        decays = [int(longer * step / factor) for step in default.decay_steps]
        assert row["decay_steps"] == tuple(decays)
        if row["batch_size"] <= 128:
            assert row["learning_rate"] == pytest.approx(default.learning_rate * factor)
        # Warm-up: never fewer images than by default, nor more than a third of the run.
        assert default.warmup_steps * default.batch_size <= row["warmup_steps"] * row["batch_size"]
        assert row["warmup_steps"] < row["steps"] / 3


def test_examples_of_chips_multiply_to_the_batch():
    for row in table():
        examples = re.findall(r"(\d+)(?: chips)?, (\d+) each", row["example"])
        assert examples and {int(chips) * int(each) for chips, each in examples} == {row["batch_size"]}


@pytest.mark.parametrize("name", LAUNCHED)
def test_schedules_of_the_files_are_rows_of_the_table(name):
    batch_size = int(option(name, "config.train.batch_size"))
    (row,) = (row for row in table() if row["batch_size"] == batch_size)
    for field in ("learning_rate", "steps", "decay_steps", "warmup_steps"):
        assert yaml_value(option(name, f"config.train.{field}")) == row[field]
    assert batch_size % devices(name) == 0
