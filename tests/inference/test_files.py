import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mrcnn_jax.inference.files import (
    PICTURE_MARK,
    describe_earlier_pictures,
    find_images,
    passed_over,
    picture_paths,
    read_image_ids,
)


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.jfif", "d.AVIF", "notes.txt", ".hidden.png", "sub.png/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images, errors = find_images([tmp_path / "notes.txt", str(tmp_path)])
    names = ["notes.txt", "a.png", "b.JPG", "c.jfif", "d.AVIF"]
    assert images == [tmp_path / name for name in names]
    assert errors == []


def test_files_passed_over_in_folders_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.CR2", "c.cr2", "d.txt", "README", ".DS_Store", "sub/e.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    arguments = [tmp_path, tmp_path / "d.txt", tmp_path / "nowhere"]
    assert passed_over(arguments) == "passed over 4 files: .cr2 (2), .txt (1), without suffix (1)"
    assert passed_over([tmp_path / "sub"]) == "passed over 1 file: .xyz (1)"
    assert passed_over([tmp_path / "a.png", tmp_path / "d.txt"]) == ""


def test_arguments_without_images_are_errors_and_the_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").touch()
    images, errors = find_images([tmp_path / "empty", "nowhere/", tmp_path / "a.png", "missing.jpg"])
    assert images == [tmp_path / "a.png"]
    messages = [str(error) for error in errors]
    assert messages[0].startswith(f"{tmp_path}/empty: no images in this folder; images end in .avif, .bmp")
    assert messages[1:] == [f"{name}: no such file or folder" for name in ("nowhere", "missing.jpg")]


def test_pictures_have_distinct_names() -> None:
    images = [Path(name) for name in ("x/a.jpg", "y/a.png", "a-2.jpg", "z/A.jpg", "b.tar.jpg")]
    names = [path.name for path in picture_paths(images, Path("no such folder"))]
    assert names == ["a.png", "a-2.png", "a-2-2.png", "A-3.png", "b.tar.png"]


def test_pictures_never_replace_an_input(tmp_path: Path) -> None:
    inputs = [tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "b.png"]
    (tmp_path / "other").mkdir()
    output = tmp_path / "other" / ".."  # the same folder by another name
    assert [path.name for path in picture_paths(inputs, output)] == ["a-2.png", "b-2.png", "b-3.png"]


def test_pictures_replace_only_pictures_of_earlier_runs(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "a-2.png").touch()
    mark = PngInfo()
    for key, text in PICTURE_MARK.items():
        mark.add_text(key, text)
    Image.new("RGB", (3, 3)).save(tmp_path / "b.png", pnginfo=mark)
    images = [Path("x/a.jpg"), Path("x/b.jpg")]
    pictures = picture_paths(images, tmp_path)
    assert [path.name for path in pictures] == ["a-3.png", "b.png"]
    assert describe_earlier_pictures(tmp_path, pictures) == ""
    kept = f"{tmp_path} has 1 picture of other images, by an earlier run; they are kept"
    assert describe_earlier_pictures(tmp_path, pictures[:1]) == kept
    assert describe_earlier_pictures(tmp_path / "none", pictures) == ""


def test_image_ids_by_file_name(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    entries = [("a.jpg", 5), ("val/a.jpg", 9), ("b.jpg", 3)]
    file.write_text(json.dumps({"images": [{"file_name": name, "id": i} for name, i in entries]}))
    assert read_image_ids(file, [Path("data/val/a.jpg"), Path("/else/a.jpg"), Path("b.jpg")]) == [9, 5, 3]
    with pytest.raises(ValueError, match=r"coco.json: 1 of 2 images are not in it: data/c.jpg"):
        read_image_ids(file, [Path("b.jpg"), Path("data/c.jpg")])


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("val\\a.jpg", 9),
        (" val/a.jpg\n", 9),
        (".\\val\\a.jpg", 5),
        ("val/cafe\u0301.jpg", 9),
        ("val/a.jpg", 9.0),
    ],
)
def test_names_and_ids_as_other_systems_write_them(tmp_path: Path, written: str, number: float) -> None:
    """The name of a longer path comes before the exact name of a shorter one, here 5."""
    file = tmp_path / "coco.json"
    name = "caf\u00e9.jpg" if "caf" in written else "a.jpg"
    entries = [{"file_name": name, "id": 5}, {"file_name": written, "id": 9}]
    file.write_text(json.dumps({"images": entries}))
    found = read_image_ids(file, [Path("data/val") / name])
    assert found == [number] and type(found[0]) is int


def test_names_that_differ_in_their_spelling_only_are_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    entries = [{"file_name": "val\\a.jpg", "id": 1}, {"file_name": "val/a.jpg ", "id": 2}]
    file.write_text(json.dumps({"images": entries}))
    with pytest.raises(ValueError, match=r"1 of 1 images are not in it: val/a\.jpg"):
        read_image_ids(file, [Path("val/a.jpg")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a COCO file"),
        ("null", "not a COCO file"),
        ('{"images": 3}', "not a COCO file"),
        ('{"images": [{"id": 3}]}', "not a COCO file"),
        ('{"images": [[]]}', "not a COCO file"),
        ('{"images": [{"id": 3, "file_name": []}]}', "not a COCO file"),
    ],
)
def test_file_that_is_not_coco_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "coco.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"coco\.json: {message}"):
        read_image_ids(file, [Path("a.jpg")])


@pytest.mark.parametrize("value", ["7", None, 1.5, True])
def test_image_id_must_be_an_integer(tmp_path: Path, value: object) -> None:
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": [{"file_name": "a.jpg", "id": value}]}))
    with pytest.raises(ValueError, match=r"image 'a\.jpg': id must be an integer"):
        read_image_ids(file, [Path("a.jpg")])


def test_images_that_would_share_an_id_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    entries = [("a.jpg", 5), ("b.jpg", 3), ("b.jpg", 3), ("c.jpg", 1), ("c.jpg", 2)]
    file.write_text(json.dumps({"images": [{"file_name": name, "id": i} for name, i in entries]}))
    assert read_image_ids(file, [Path("x/a.jpg"), Path("b.jpg")]) == [5, 3]
    with pytest.raises(
        ValueError, match=r"coco\.json: several images have the same id: 5 for x/a\.jpg and y/a\.jpg;"
    ):
        read_image_ids(file, [Path("x/a.jpg"), Path("b.jpg"), Path("y/a.jpg")])
    with pytest.raises(ValueError, match=r"coco\.json: image 'c\.jpg' has several ids: \[1, 2\]"):
        read_image_ids(file, [Path("c.jpg")])
