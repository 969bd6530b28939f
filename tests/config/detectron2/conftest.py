"""Detectron2's YAML files, and files of one's own."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fixture():
    """What ``tests/fixtures/detectron2_yaml.py`` wrote."""
    return json.loads((Path(__file__).parents[2] / "fixtures/detectron2_yaml.json").read_text())


@pytest.fixture(scope="session")
def zoo(fixture, tmp_path_factory):
    """The folder of Detectron2's files."""
    folder = tmp_path_factory.mktemp("configs")
    for name, text in fixture["files"].items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def write(tmp_path):
    """``write(text, name)``: a file with this text."""

    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
