"""The files in docs/serving, without Docker and without a cluster: they agree with each other."""

import re
from pathlib import Path

import pytest
import yaml

from tests.run_command import ROOT, run_here

FILES = ROOT / "docs" / "serving"
DOCKERFILE = (FILES / "Dockerfile").read_text()


def documents():
    deployment, service = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    return deployment, service


def pod():
    return documents()[0]["spec"]["template"]["spec"]


def container():
    (found,) = pod()["containers"]
    return found


def test_the_service_finds_the_pods():
    deployment, service = documents()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    (port,), (opened,) = service["spec"]["ports"], container()["ports"]
    assert port["targetPort"] == opened["name"]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert opened["containerPort"] == int(annotations["prometheus.io/port"])
    assert f"EXPOSE {opened['containerPort']}\n" in DOCKERFILE


def test_the_program_accepts_the_command(tmp_path):
    (entry,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    program, command, *flags = yaml.safe_load(f"[{entry}]")
    assert program == "mrcnn-jax"
    # All flags and values are right: all that is missing is the model.
    outcome = run_here(command, *flags, *container()["args"], directory=tmp_path)
    assert outcome.returncode == 1 and outcome.stderr.startswith("error: /model")


def test_nothing_is_written_but_to_the_cache_and_nobody_is_root():
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container()["volumeMounts"]}
    assert mounts == {"/model": True, "/cache": False}
    assert {mount["name"] for mount in container()["volumeMounts"]} == {
        volume["name"] for volume in pod()["volumes"]
    }
    assert (
        container()["securityContext"]["readOnlyRootFilesystem"] and pod()["securityContext"]["runAsNonRoot"]
    )
    user = pod()["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}\n" in DOCKERFILE and f"--owner={user} --group={user} /cache" in DOCKERFILE
    assert "HOME=/cache JAX_COMPILATION_CACHE_DIR=/cache/" in DOCKERFILE


def test_the_image_has_the_locked_versions_of_what_it_installs():
    (packages,) = re.findall(
        r'--constraint=requirements.lock "\$JAX" \\\n(.*?) \\\n    &&', DOCKERFILE, re.DOTALL
    )
    locked = re.findall("^([^=#]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    names = {name.lower().replace("-", "_") for name in locked}
    assert {name.lower().replace("-", "_") for name in packages.replace("\\", "").split()} <= names


def test_what_is_left_out_of_the_image_is_not_copied():
    kept = {
        line[1:] for line in (FILES / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert all((ROOT / name).exists() for name in kept)
    links = {path.readlink().name for path in Path(ROOT / "mrcnn_jax").iterdir() if path.is_symlink()}
    assert links <= kept and {"setup.cfg", "pyproject.toml", "requirements.lock", "mrcnn_jax"} <= kept


def test_the_manifest_has_kubernetes_schema():
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    for document in documents():
        validator.validate(document, "1.32", strict=True)
