import json
from pathlib import Path

import pytest
from PIL import Image

from mrcnn_jax.data.folders import find_layout
from tests.run_command import run_here


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of labelme annotations, in the working directory."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (20, 10)).save(folder / "a.png")
    shapes = [
        {"label": "dog", "points": [[2, 1], [10, 1], [2, 5]], "shape_type": "polygon"},
        {"label": "cat", "points": [[2, 1], [10, 5]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[2, 1]], "shape_type": "point"},
    ]
    (folder / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    return folder


def test_prints_counts_and_what_was_left_out(tmp_path, photos):
    done = run_here("to_coco", "photos", "--output=dogs.json", directory=tmp_path)
    assert done == (
        0,
        "category  objects  with mask  images\n"
        "cat             1          0       1\n"
        "dog             1          1       1\n"
        "left out: shapes of type 'point': they have no area (1)\n"
        "dogs.json: 1 images in photos, 2 objects\n"
        "To train on it: --data=.\n",
        "",
    )
    assert len(json.loads((tmp_path / "dogs.json").read_text())["annotations"]) == 2


def test_how_to_train_on_it(tmp_path, photos):
    def last_line(output):
        done = run_here("to_coco", "photos", f"--output={output}", directory=tmp_path)
        return done.stdout.splitlines()[-1]

    assert last_line("photos/annotations.json") == "To train on it: --data=photos"
    assert find_layout(photos) == {"train_images": ".", "train_annotations": "annotations.json"}
    (tmp_path / "made here").mkdir()
    assert last_line("made here/dogs.json") == (
        "To train on it: --config.data.root=. --config.data.train_images=photos "
        "--config.data.train_annotations='made here/dogs.json', and --config.train.eval_every=0 "
        "without a validation set"
    )
    for split in ("val", "test"):
        assert last_line(f"made here/{split}.json") == (
            "To evaluate on it: --config.data.root=. --config.data.val_images=photos "
            f"--config.data.val_annotations='made here/{split}.json'"
        )
    (photos / "annotations.json").rename(photos / "train.json")
    assert last_line("photos/val.json") == "To train on it: --data=photos"  # with both sets


def test_never_overwrites_a_file(tmp_path, photos):
    (tmp_path / "dogs.json").write_text("mine")
    done = run_here("to_coco", "photos", "--output=dogs.json", directory=tmp_path)
    assert done.stderr.startswith("error: --output=dogs.json: exists; it is not overwritten")
    assert (tmp_path / "dogs.json").read_text() == "mine"
    done = run_here("to_coco", "photos", "--output=none/dogs.json", directory=tmp_path)
    assert done.stderr.startswith("error: --output=none/dogs.json: there is no folder none")


def test_damaged_files_are_errors_or_left_out(tmp_path, photos):
    (photos / "b.json").write_text('{"shapes": [], "imagePath": "b.png"}')
    done = run_here("to_coco", "photos", "--output=dogs.json", directory=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    message = "error: photos: 1 error in annotations and images; --skip_bad leaves them out, "
    assert f"{message}--images=FOLDER says where the images are\n" in done.stderr
    assert "image 'b.png': there is no such file in photos" in done.stderr
    assert not (tmp_path / "dogs.json").exists()
    done = run_here("to_coco", "photos", "--output=dogs.json", "--skip_bad", directory=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("1 error, left out of the data\n")
    assert "dogs.json: 1 images in photos, 2 objects\n" in done.stdout


def test_categories_that_are_kept(tmp_path, photos):
    arguments = "photos", "--output=dogs.json", "--categories=bird,dog"
    done = run_here("to_coco", *arguments, directory=tmp_path)
    assert "left out: objects of category 'cat': not among --categories (1)\n" in done.stdout
    content = json.loads((tmp_path / "dogs.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "bird"}, {"id": 2, "name": "dog"}]
    done = run_here("to_coco", "photos", "--output=birds.json", "--categories=bird", directory=tmp_path)
    assert done.stderr.startswith("error: photos: there are no objects to write")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one folder or file of annotations is needed, got 0; see --help"),
        (("photos", "more"), "one folder or file of annotations is needed, got 2"),
        (("missing",), "missing: there is no such file or folder"),
        (
            ("photos/a.png",),
            "photos/a.png: has only images, no annotations; mrcnn-jax predict finds objects in them",
        ),
        (("images",), "images: has only images, no annotations; mrcnn-jax predict finds"),
        (
            ("coco/a.json",),
            "coco/a.json: is in COCO's format already; train on it with --data, the folder that also has the",
        ),
        (("coco",), "coco: is in COCO's format already; train on it with --data"),
        (("empty.json",), "empty.json: the format of these annotations is not recognised"),
        (("cvat.xml",), "cvat.xml: looks like a CVAT annotation file; it is CVAT's own XML: export them"),
        (("photos", "--images=missing"), "missing: there is no such folder of images"),
        (
            ("photos", "--split=train", "--category=dog"),
            "--split=train is for --format=yolo and voc and cityscapes, not labelme\n"
            "--category=dog is for --format=masks",
        ),
        (("photos", "--format=coco"), "flag --format=coco: value should be one of <auto|labelme|"),
    ],
)
def test_wrong_arguments(tmp_path, photos, arguments, message):
    (tmp_path / "cvat.xml").write_text("<annotations>")
    (tmp_path / "empty.json").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.jpg").touch()
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    done = run_here("to_coco", *arguments, "--output=dogs.json", directory=tmp_path)
    assert done.stderr.startswith(f"error: {message}")
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "dogs.json").exists()
