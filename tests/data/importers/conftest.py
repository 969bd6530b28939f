"""Helpers for the tests of the importers: folders of small images, and ``read_coco`` on the results."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.importers.convert import Options, convert
from mrcnn_jax.data.importers.write import write_new


@pytest.fixture
def save(tmp_path):
    """Writes a file below the test's folder: an image, by default of 20 x 10 pixels, or text, or JSON."""

    def write(name, content=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case None:
                Image.new("RGB", (20, 10)).save(path, **options)
            case np.ndarray() | Image.Image():
                (Image.fromarray(content) if isinstance(content, np.ndarray) else content).save(
                    path, **options
                )
            case str():
                path.write_text(content, encoding="utf-8")
            case _:
                path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def converted(tmp_path):
    """Converts a folder or file and reads the result: builder, content, and ``read_coco``'s dataset.

    The dataset must have no findings, not even warnings.
    """

    def run(source, **options):
        builder = convert(source, Options(**options))
        assert builder.findings == []
        content = builder.content()
        path = tmp_path / "result" / "annotations.json"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        write_new(path, content)
        dataset = read_coco("", images=str(builder.images), annotations=str(path))
        mixed = "has no segmentation, while others have; only its box is trained on"
        assert {finding.rule for finding in dataset.findings} <= {mixed}
        return builder, content, dataset

    return run


@pytest.fixture
def rules():
    """Converts a folder or file and returns the rules that its entries break, after their file's name."""

    def run(source, **options):
        builder = convert(source, Options(**options))
        return [f"{finding.file.rpartition('/')[2]}: {finding.rule}" for finding in builder.findings]

    return run


@pytest.fixture
def kept():
    """Converts a folder or file with findings: the names of the images and the number of objects left."""

    def run(source, **options):
        builder = convert(source, Options(**options))
        assert builder.findings
        content = builder.content()
        ids = [image["id"] for image in content["images"]]
        assert len(set(ids)) == len(ids) and {item["image_id"] for item in content["annotations"]} <= {*ids}
        return [image["file_name"] for image in content["images"]], len(content["annotations"])

    return run
