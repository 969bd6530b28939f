import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mrcnn_jax.data.image_list import read_image_list
from mrcnn_jax.runs.categories import Categories

IMAGES = [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "sub/a.jpg", "width": 4, "height": 5}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "sub/a.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path / "images"


def write(folder: Path, **content: Any) -> Path:
    file = folder.parent / "list.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("more", [{}, {"annotations": []}, {"categories": []}])
def test_images_in_the_files_order(folder: Path, more: dict) -> None:
    found = read_image_list(write(folder, images=IMAGES, **more), folder)
    assert found.images == [folder / "b.jpg", folder / "sub/a.jpg"] and found.ids == [7, 3]
    found.check_categories(Categories(ids=(1,), names=("ball",)))  # there are none to compare with


def test_sizes_if_asked_for(folder: Path) -> None:
    listed = [{"id": 3, "file_name": "a.jpg", "width": 4, "height": 5}]
    Image.new("RGB", (4, 5)).save(folder / "a.jpg")
    assert read_image_list(write(folder, images=listed), folder).sizes == []
    found = read_image_list(write(folder, images=listed), folder, sizes=True)
    assert found.sizes == [(5, 4)] and found.pixels(0).shape == (5, 4, 3)

    found = read_image_list(write(folder, images=[listed[0] | {"width": 5}]), folder, sizes=True)
    with pytest.raises(
        ValueError, match=r"a\.jpg: image 3 of .*list\.json: the file has 5x4 pixels .* say 5x5"
    ):
        found.pixels(0)
    with pytest.raises(ValueError, match=r"list\.json: images\[0\]: height must be an integer"):
        read_image_list(write(folder, images=IMAGES), folder, sizes=True)


def test_categories_of_the_run_must_be_listed(folder: Path) -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 4, "name": "cat"}]
    found = read_image_list(write(folder, images=IMAGES, categories=categories), folder)
    found.check_categories(Categories(ids=(1, 2, 3), names=("person", "N/A", "car")))
    with pytest.raises(ValueError) as error:
        found.check_categories(Categories(ids=(1, 2, 3), names=("person", "car", "cat")))
    assert str(error.value).endswith(
        "list.json: categories differ: 2 is 'car' in the run and 'missing' here, 3 is 'cat' in the run and "
        "'car' here"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"lists no images"),
        ([{"id": 1.5, "file_name": "a.jpg"}], r"images\[0\]: id must be an integer, got 1\.5"),
        ([{"id": 1}], r"images\[0\]: file_name must be a string"),
        ([*IMAGES, {"id": 7, "file_name": "a.jpg"}], r"several images have the same id: 7$"),
        ([*IMAGES, {"id": 8, "file_name": "b.jpg"}], r"several images have the same file_name: .*b\.jpg$"),
        ([*IMAGES, {"id": 8, "file_name": "c.jpg"}], r"1 of its 3 images are not in .*images: c\.jpg: there"),
        ([{"id": 1, "file_name": "../list.json"}], r"images\[0\]: file_name must be a path inside"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, images: list, message: str) -> None:
    with pytest.raises(ValueError, match=rf"list\.json: {message}"):
        read_image_list(write(folder, images=images), folder)
