import os

import pytest

from mrcnn_jax.tool_formats.folder import output_folder


def test_files_are_there_at_the_end(tmp_path):
    path = tmp_path / "out"
    with output_folder(path) as folder:
        with folder.open("a/b.txt") as file:
            file.write("é\n")
        with folder.open_bytes("c.bin") as binary:
            binary.write(b"\0")
        assert not (path / "a").exists()
    assert (path / "a/b.txt").read_bytes() == "é\n".encode() and (path / "c.bin").read_bytes() == b"\0"
    assert sorted(os.listdir(path)) == ["a", "c.bin"]


@pytest.mark.parametrize("is_new", [True, False])
def test_none_if_anything_fails(tmp_path, is_new):
    path = tmp_path / "out"
    if not is_new:
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    with pytest.raises(RuntimeError), output_folder(path) as folder:
        folder.open("a.txt").close()
        raise RuntimeError
    assert not path.exists() if is_new else os.listdir(path) == ["mine.txt"]


def test_no_file_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("a.txt", "link"):
        with (
            pytest.raises(ValueError, match=f"{name}: exists; it is not overwritten"),
            output_folder(tmp_path) as folder,
        ):
            folder.open(name)
    with pytest.raises(ValueError, match="exists"), output_folder(tmp_path) as folder:
        folder.open("new.txt").close()
        folder.open("late.txt").close()
        (tmp_path / "late.txt").write_text("mine")  # by another program, meanwhile
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "late.txt", "link"]
    assert (tmp_path / "late.txt").read_text() == "mine"


def test_files_that_were_moved_are_removed_if_one_cannot_be(tmp_path):
    (tmp_path / "b").write_text("mine")  # where a folder is to be
    with pytest.raises(OSError), output_folder(tmp_path) as folder:
        for name in ("a.txt", "b/c.txt", "d.txt"):
            folder.open(name).close()
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "b/../../a.txt", ""])
def test_no_file_outside(tmp_path, name):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="not a path inside"), output_folder(tmp_path / "out") as folder:
        folder.open(name)
    assert os.listdir(tmp_path) == ["out"]


def test_two_files_of_one_name(tmp_path):
    with pytest.raises(ValueError, match="two images would be written"), output_folder(tmp_path) as folder:
        folder.open("a.txt").close()
        folder.open("a.txt")


def test_wrong_folders(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (("file", "is not a folder"), ("none/out", "there is no folder")):
        with pytest.raises(ValueError, match=message), output_folder(tmp_path / path):
            raise AssertionError
