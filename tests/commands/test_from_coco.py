import json
import os

import pytest

from tests.run_command import run_here
from tests.tool_formats.examples import write_example


def test_written_and_left_out_is_printed(tmp_path):
    write_example(tmp_path)
    arguments = "detections.json", "--images=photos", "--format=labelme", "--output=photos"
    done = run_here("from_coco", *arguments, directory=tmp_path)
    assert done == (
        0,
        "left out: objects of lower scores (1)\nphotos: 5 objects in 2 images, as labelme\n",
        "",
    )
    assert json.loads((tmp_path / "photos/sub/b b.json").read_text())["imagePath"] == "b b.jpg"
    assert sorted(os.listdir(tmp_path / "photos")) == ["a.json", "a.png", "sub"]
    done = run_here("to_coco", "photos", "--output=labels.json", directory=tmp_path)
    assert "labels.json: 2 images in photos, 5 objects\n" in done.stdout
    done = run_here("from_coco", *arguments, directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: photos/a.json: exists; it is not overwritten\n")


@pytest.mark.parametrize("format", ["coco", "cvat", "label_studio", "yolo", "voc", "masks"])
def test_every_format(tmp_path, format):
    write_example(tmp_path)
    flags = "--images=photos", f"--format={format}", "--output=out", "--score_threshold=0", "--tolerance=0"
    done = run_here("from_coco", "detections.json", *flags, directory=tmp_path)
    assert done.stdout.endswith(f"out: 6 objects in 2 images, as {format}\n") and done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one COCO results list is needed, got 0; see --help"),
        (("detections.json", "--images=none"), "none: there is no such folder of images"),
        (("none.json",), "none.json: No such file or directory"),
        (("photos",), "photos: not a regular file"),
        (("detections.json", "--output=none/out"), "none/out: there is no folder none"),
        (("detections.json", "--output=detections.json"), "detections.json: is not a folder"),
        (("detections.json", "--image_url=x"), "--image_url=x is for --format=label_studio, not coco"),
        (("detections.json", "--format=via"), "flag --format=via: value should be one of <coco|labelme|"),
        (("detections.json", "--tolerance=-1"), "flag --tolerance=-1: "),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    write_example(tmp_path)
    defaults = "--images=photos", "--format=coco", "--output=out"
    done = run_here("from_coco", *defaults, *arguments, directory=tmp_path)
    assert done.stderr.startswith(f"error: {message}")
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "out").exists()
