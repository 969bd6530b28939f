import time

import pytest

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.file_names import ImageFolder

COMPOSED, DECOMPOSED = "caf\u00e9.png", "cafe\u0301.png"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", COMPOSED, "sub/c .png"):
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("sub\\b.png", "sub/b.png"),
        (".\\sub\\b.png", "sub/b.png"),
        ("a.png ", "a.png"),
        (" sub\\b.png\n", "sub/b.png"),
        (COMPOSED, COMPOSED),
        (DECOMPOSED, COMPOSED),
        ("sub/c .png", "sub/c .png"),
    ],
)
def test_names_of_other_systems_are_found(images, name, file):
    path = ImageFolder(images).find(name)
    assert path == images / file and path.is_file()


def test_the_exact_name_comes_first(images):
    for name in ("sub\\b.png", "a.png ", DECOMPOSED):
        (images / name).write_bytes(b"")
        assert ImageFolder(images).find(name) == images / name


def test_a_name_that_may_be_either_of_two_files_is_not_found(images):
    (images / DECOMPOSED).write_bytes(b"")
    folder = ImageFolder(images)
    path = folder.find(f"{COMPOSED} ")
    assert path == images / f"{COMPOSED} " or not folder.has(path)


def test_absolute_names_inside_the_folder_are_found(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    for folder in (images, tmp_path / "link"):
        assert ImageFolder(folder).find(str(images / "sub" / "b.png")) == folder / "sub" / "b.png"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "sub/../../a.png", ".", "/", "..\\..\\a.png/.."])
def test_names_that_lead_out_of_the_folder_are_errors(images, name):
    with pytest.raises(ValueError, match="file_name must be a path inside the image folder, got "):
        ImageFolder(images).find(name)


def test_the_message_of_a_name_outside_the_folder_shows_a_similar_one(images):
    rule = "file_name must be a path inside the image folder, got '/home/photos/a.png'"
    with pytest.raises(ValueError) as error:
        ImageFolder(images).find("/home/photos/a.png")
    assert str(error.value) == f"{rule}; the image folder itself has 'a.png'"


def test_similar_names_of_many_missing_files_are_found_quickly(images):
    """Each used to be compared with all: hours for a large folder with another one's annotations."""
    for number in range(3000):
        (images / f"{number}.png").touch()
    folder = ImageFolder(images)
    start = time.process_time()
    for number in range(3000, 23000):
        assert folder.missing(images / f"{number}.png") == "there is no such file"
    assert time.process_time() - start < 30


@pytest.mark.parametrize("name", ["..\\secret.png", " ../secret.png"])
def test_other_spellings_do_not_lead_out_of_the_folder(images, name):
    (images.parent / "secret.png").write_bytes(b"")
    folder = ImageFolder(images)
    path = folder.find(name)
    assert path == images / name and not folder.has(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d.png", "there is no such file"),
        ("A.PNG", "there is no such file; the folder has 'a.png', not 'A.PNG'"),
        ("sub/B.png", "there is no such file; the folder has 'b.png', not 'B.png'"),
        ("CAFE\u0301.png", "there is no such file; the folder has 'caf\\xe9.png', not 'CAFE\\u0301.png'"),
        ("train/a.png", "there is no such file; the image folder itself has 'a.png'"),
        ("C:\\photos\\a.png", "there is no such file; the image folder itself has 'a.png'"),
        ("https://host/photos/a.png", "there is no such file; the image folder itself has 'a.png'"),
        ("a.jpg", "there is no such file; the folder has 'a.png', not 'a.jpg'"),
        ("0a1b2c3d-a.jpg", "there is no such file; the folder has 'a.png', not '0a1b2c3d-a.jpg'"),
        ("sub/c%20.png", "there is no such file; the folder has 'c .png', not 'c%20.png'"),
    ],
)
def test_the_message_shows_a_similar_name(images, name, message):
    folder = ImageFolder(images)
    path = folder.find(name)
    assert not folder.has(path) and folder.missing(path) == message


def test_a_dataset_with_such_names(folder):
    (folder.root / "images" / "deep").mkdir()
    for name in ("deep/a.png", COMPOSED):
        folder.add_image(name=name)
    first, second = folder.content["images"]
    first["file_name"], second["file_name"] = "deep\\a.png", DECOMPOSED
    dataset = read_coco(**folder.write())
    assert dataset.findings == () and all(image.path.is_file() for image in dataset.images)
    assert [image.file_name for image in dataset.images] == ["deep\\a.png", DECOMPOSED]

    first["file_name"] = COMPOSED
    (finding,) = read_coco(**folder.write()).findings  # both are the same file
    assert finding.warning and "is also used by image 1" in finding.rule
