"""From files of four channels to detections, by the commands."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.shapes import make_shapes
from tests.run_command import run_apart
from tests.training.depth_shapes import MEAN, STD, make_depth_shapes

# Small pictures, and a model without keypoints.
SMALL = {
    "model.keypoint": False,
    "model.anchor_sizes": (8, 16, 32, 64, 128),
    "model.roi_canonical_size": 64,
    "data.train_short_sides": (64,),
    "data.test_short_side": 64,
    "data.long_side": 64,
    "data.canvases": ((64, 64),),
}
RGB_FILES = {
    f"data.{split}_{kind}": value
    for split in ("train", "val")
    for kind, value in (("images", f"{split}_rgb"), ("annotations", f"annotations/rgb_{split}.json"))
}
RGBD = {
    "model.pixel_type": "float32",
    "model.pixel_mean": (123.675, 116.28, 103.53, MEAN),
    "model.pixel_std": (58.395, 57.12, 57.375, STD),
}


def settings(values):
    return [f"--config.{name}={value}" for name, value in values.items()]


def run(command, *arguments, directory):
    outcome = run_apart(command, *arguments, directory=directory)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.mark.slow
def test_a_fourth_channel_tells_what_colours_cannot(tmp_path):
    make_shapes(tmp_path / "shapes", train=200, val=40, image_size=64, seed=0)
    make_depth_shapes(tmp_path / "shapes", tmp_path / "depth")
    common = ["--config=shapes", "--config.data.root=depth", *settings(SMALL)]
    common += settings({"train.steps": 200, "train.eval_every": 200, "train.checkpoint_every": 200})
    run("train", *common, *settings(RGB_FILES), "--workdir=rgb", directory=tmp_path)
    for split in ("train", "val"):
        options = ["--channels=4", "--pixel_type=float32", "--mask_grid=56"]
        files = [f"--images=depth/{split}", f"--annotations=depth/annotations/instances_{split}.json"]
        run("prepare", *options, *files, "--output=depth/records", "--workers=1", directory=tmp_path)
    folders = {
        f"data.{split}_records": f"records/coco_objects/instances_{split}/1.0.0" for split in ("train", "val")
    }
    run("show", *common, *settings(RGBD), *settings(folders), "--output=shown", directory=tmp_path)
    said = run(
        "train", *common, *settings(RGBD), *settings(folders), "--init=rgb", "--workdir=rgbd",
        directory=tmp_path,
    )  # fmt: skip
    assert "the weights of backbone.conv1.kernel for channel 3 of the images (from 0) are 0, to be" in said

    run("evaluate", "--workdir=rgbd", "--config.data.val_records=", directory=tmp_path)
    run("evaluate", "--workdir=rgb", directory=tmp_path)
    scores = [
        json.loads((tmp_path / name / "evaluation.json").read_text())["bbox"]["AP50"]
        for name in ("rgb", "rgbd")
    ]
    assert scores[1] > scores[0] + 10

    arguments = ["--workdir=rgbd", "--output=out", "--config.data.shown_channels=(3,)", "depth/val"]
    run("predict", *arguments, directory=tmp_path)
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) > 0
    picture = np.asarray(Image.open(tmp_path / "out" / "000001.png"))
    assert picture.shape == (640, 640, 3)
