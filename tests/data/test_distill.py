import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.distill import distill
from mrcnn_jax.data.importers.write import write_new
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.records import prepare_records
from mrcnn_jax.rle import Rle
from tests.run_command import run_here

POINTS = ["head", "tail"]
CATEGORIES = [{"id": 7, "name": "dog", "keypoints": POINTS, "skeleton": [[1, 2]]}, {"id": 3, "name": "car"}]


def mask(*, rows=(1, 5), columns=(2, 10)):
    pixels = np.zeros((10, 20), bool)
    pixels[slice(*rows), slice(*columns)] = True
    return Rle.from_bitmap(pixels).compressed()


def dog(image, score, **changes):
    """A detection in the upper left part of a 20 x 10 image (width x height)."""
    entry = {
        "image_id": image,
        "category_id": 7,
        "category": "dog",
        "bbox": [2.0, 1.0, 8.0, 4.25],
        "score": score,
        "segmentation": mask(),
        "keypoints": [3.5, 2, 1, 30, -1, 1],  # the second one is outside the image
    }
    return entry | changes


def car(image, score, **changes):
    return {
        key: value for key, value in dog(image, score, category_id=3, **changes).items() if key != "keypoints"
    }


@pytest.fixture
def files(tmp_path):
    """Four unlabelled images, the results of a model, and two labelled images with three dogs and a crowd."""

    class Files:
        results = tmp_path / "results.json"
        images = tmp_path / "image_info.json"
        like = tmp_path / "labelled.json"

        def write(self, *entries):
            self.results.write_text(json.dumps(entries))

        def distill(self, **options):
            return distill(self.results, self.images, **{"like": self.like} | options)

    (tmp_path / "unlabelled").mkdir()
    for index in range(1, 5):
        Image.new("RGB", (20, 10), (90, 90, 90)).save(tmp_path / "unlabelled" / f"{index}.png")
    entries = [{"id": i, "file_name": f"{i}.png", "height": 10, "width": 20} for i in range(1, 5)]
    Files.images.write_text(json.dumps({"images": entries, "licenses": []}))
    labels = [(7, 0), (7, 0), (7, 0), (7, 1), (3, 0)]
    labelled = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"category_id": label, "iscrowd": crowd} for label, crowd in labels],
        "categories": CATEGORIES,
    }
    Files.like.write_text(json.dumps(labelled))
    return Files()


def test_by_hand(files):
    files.write(dog(2, 0.75))
    made = files.distill(min_score=0.5)
    assert made.content["annotations"] == [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 7,
            "bbox": [2.0, 1.0, 8.0, 4.25],
            "area": 32,
            "iscrowd": 0,
            "score": 0.75,
            "segmentation": mask(),
            "keypoints": [3.5, 2, 2, 30, -1, 2],
            "num_keypoints": 2,
        }
    ]
    assert [image["id"] for image in made.content["images"]] == [1, 2, 3, 4]
    assert made.content["categories"] == CATEGORIES
    files.write({"image_id": 1, "category_id": 3, "bbox": [0, 0, 2.5, 3], "score": 0.5})
    (found,) = files.distill(min_score=0.5).content["annotations"]
    assert (found["area"], found["segmentation"]) == (7.5, []) and "keypoints" not in found


def test_thresholds_for_as_many_objects_per_image_as_labelled(files):
    """Labelled are 1.5 dogs and 0.5 cars an image: 6 and 2 in four images."""
    dogs = [0.9, 0.3, 0.8, 0.2, 0.7, 0.1, 0.6, 0.5]
    files.write(
        *(dog(1 + i % 4, score) for i, score in enumerate(dogs)), *(car(1, s) for s in (0.6, 0.4, 0.4))
    )
    made = files.distill()
    found = {(x.name, x.found, x.wanted, x.threshold, x.kept) for x in made.selections}
    # Of cars, three are kept: the last two have the same score.
    assert found == {("dog", 8, 6, 0.3, 6), ("car", 3, 2, 0.4, 3)}
    kept = [x["score"] for x in made.content["annotations"] if x["category_id"] == 7]
    assert sorted(kept) == [0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [x["id"] for x in made.content["annotations"]] == list(range(1, 10))

    files.write(dog(1, 0.2), dog(1, 0.1))  # fewer than wanted, and no car
    assert [(x.threshold, x.kept) for x in files.distill().selections] == [(None, 0), (0.1, 2)]
    files.write(dog(1, 0.2), dog(1, 0.5), car(1, 0.5))
    fixed = files.distill(min_score=0.5)
    assert [(x.wanted, x.threshold, x.kept) for x in fixed.selections] == [(None, 0.5, 1), (None, 0.5, 1)]


def test_what_cannot_be_trained_on_is_left_out(files):
    files.write(dog(1, 0.9, bbox=[1, 1, 0, 3]), dog(1, 0.9, segmentation=mask(rows=(0, 0))), dog(1, 0.9))
    made = files.distill(min_score=0.5)
    assert len(made.content["annotations"]) == 1
    assert made.left_out == {"objects whose box has no area": 1, "objects whose mask has no pixels": 1}


def test_the_result_can_be_trained_on(files, tmp_path):
    files.write(dog(1, 0.9), car(1, 0.8), car(3, 0.8), dog(4, 0.1))
    output = tmp_path / "made.json"
    write_new(output, files.distill(min_score=0.5).content)
    data = DataConfig(
        root=str(tmp_path), train_images="unlabelled", train_annotations=output.name, mask_grid=8
    )
    source = open_data_source(Config(data=data, model=ModelConfig(keypoint=True)))
    assert source.findings == () and source.categories.keypoint_names == tuple(POINTS)
    assert source.counts.tolist() == [[2, 0], [1, 0]] and source.visible_keypoints.tolist() == [2, 0, 0, 0]
    assert source.num_objects.tolist() == [2, 0, 1, 0]
    objects = source.objects(0)
    assert objects.boxes[0].tolist() == [2, 1, 10, 5.25] and objects.keypoints[0, :, 2].tolist() == [2, 2]
    assert objects.masks.any(axis=1).all()
    dataset = read_coco(tmp_path, images="unlabelled", annotations=output.name)
    _, prepared = prepare_records(dataset, tmp_path / "records", mask_grid=8, num_workers=1)
    assert prepared.findings == () and len(prepared.images) == 4


def test_categories_come_from_the_images_file_if_there_is_no_other(files):
    files.write(car(1, 0.9))
    with pytest.raises(ValueError, match=r"image_info\.json: the section 'categories' is missing"):
        files.distill(like=None, min_score=0.5)
    content = json.loads(files.images.read_text())
    plain = [{"id": 3, "name": "car"}, {"id": 7, "name": "dog"}]
    files.images.write_text(json.dumps(content | {"categories": plain}))
    assert files.distill(like=None, min_score=0.5).content["categories"] == plain
    files.write(dog(1, 0.9))
    with pytest.raises(ValueError, match=r"entry 0: has keypoints, but category 7 of \S+ defines none"):
        files.distill(like=None, min_score=0.5)
    with pytest.raises(ValueError, match="give --like, a file of labelled images, or --min_score"):
        files.distill(like=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a COCO results list"),
        ('{"annotations": []}', "must be a COCO results list"),
        ('[{"image_id": 1, ', "entry 0: not valid JSON"),
        ("[{}] ", "entry 0: image_id must be an integer, got None"),
        ("[1]", "entry 0: it must be a JSON object, got 1"),
        (json.dumps([dog(1, 0.9), dog(9, 0.9)]), "entry 1: image_id 9 is not among the images"),
        (json.dumps([dog(1, 0.9)])[:-1], "the list must go on with ',' or ']' after entry 0"),
        (json.dumps([dog(1, 0.9)])[:-1] + ",]", "entry 1: not valid JSON"),
        (json.dumps([dog(1, 0.9, category_id=8)]), "entry 0: category_id 8 is not among those of"),
        (json.dumps([dog(1, float("nan"))]), "entry 0: score must be a number, got nan"),
        (json.dumps([dog(1, 0.9, bbox=[1, 2, 3])]), "entry 0: bbox must be"),
        (json.dumps([dog(1, 0.9, segmentation=[[1, 2, 3, 4, 5, 6]])]), "entry 0: segmentation must be"),
        (
            json.dumps([dog(1, 0.9, segmentation={"size": [1, 1], "counts": [1]})]),
            "entry 0: segmentation",
        ),
        (json.dumps([dog(1, 0.9, keypoints=[1, 2, 3])]), "entry 0: keypoints must be"),
    ],
)
def test_results_that_are_wrong(files, text, message):
    files.results.write_text(text)
    with pytest.raises(ValueError) as error:
        files.distill(min_score=0.5)
    assert str(error.value).startswith(f"{files.results}: {message}")


def test_an_empty_list_and_spaces(files):
    files.results.write_text(" [ ] \n")
    assert files.distill(min_score=0.5).content["annotations"] == []
    files.results.write_text(f" [\n{json.dumps(car(1, 0.9))} ,\n\t{json.dumps(car(2, 0.9))} ]\n")
    assert len(files.distill(min_score=0.5).content["annotations"]) == 2


def test_the_command(files, tmp_path):
    files.write(*(dog(1, score / 10) for score in range(10)), car(2, 0.5), car(2, 0.4, bbox=[0, 0, 0, 0]))
    flags = "--results=results.json", "--images=image_info.json", "--output=made.json"
    done = run_here("distill", *flags, "--like=labelled.json", directory=tmp_path)
    assert done == (
        0,
        "category  found  wanted   score  kept\n"
        "car           2       2  0.4000     1\n"
        "dog          10       6  0.4000     6\n"
        "left out: objects whose box has no area (1)\n"
        "made.json: 4 images, 7 objects, 1.75 per image\n",
        "",
    )
    done = run_here("distill", *flags, "--like=labelled.json", directory=tmp_path)
    assert done.stderr.startswith("error: --output=made.json: exists; it is not overwritten\n")
    (tmp_path / "made.json").unlink()
    done = run_here("distill", *flags, "--like=labelled.json", "--min_score=0.95", directory=tmp_path)
    assert done.stderr.startswith("error: results.json: no object is kept\n")
    assert not (tmp_path / "made.json").exists()
    done = run_here("distill", *flags, "--like=labelled.json", "--min_score=0.9", directory=tmp_path)
    assert "dog          10       -  0.9000     1\n" in done.stdout
