import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrcnn_jax.many_images.inputs import Inputs, ParquetBytes, name_of
from tests.many_images.conftest import SUFFIXES, write_image


def entries(path, column=None):
    return list(Inputs(path, SUFFIXES, column))


def test_a_folder_and_those_below_it(tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "sub/c.png",
        "sub/deep/d.png",
        ".hidden/e.png",
        ".f.png",
        "notes.txt",
        "raw",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs = Inputs(tmp_path, SUFFIXES)
    assert list(inputs) == ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.png"] == list(inputs)
    assert inputs.base == tmp_path.resolve()
    assert inputs.describe_passed_over() == "passed over 2 files: .txt (1), without suffix (1)"


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_folders_that_may_not_be_read_are_passed_over(tmp_path, monkeypatch, call):
    """As lost+found of any ext4 disk; the folder that was given is another matter."""
    for name in ("a.png", "lost+found/b.png", "sub/c.png", "sub/mine/d.png"):
        write_image(tmp_path / "in" / name, 50)
    (tmp_path / "in" / "sub" / "e.png").symlink_to(tmp_path / "in" / "sub" / "e.png")  # in a circle
    refused = {"lost+found", "mine"}
    module, original = (os, os.scandir) if call == "scandir" else (Path, Path.stat)

    def refusing(path, **options):
        if Path(path).name in refused:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(module, call, refusing)
    inputs = Inputs(tmp_path / "in", SUFFIXES)
    for _ in range(2):
        assert list(inputs) == ["a.png", "sub/c.png", "sub/e.png"]
        assert inputs.describe_passed_over() == (
            "passed over 2 folders without permission to read them, such as lost+found/"
        )
    refused.add("in")
    with pytest.raises(PermissionError, match="in"):
        list(inputs)


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "elsewhere" / "a.png", 50)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert entries(tmp_path / "in") == ["linked/a.png"]


def test_links_do_not_multiply_a_folder(tmp_path):
    """Without a rule, six folders with links to each other have 652 paths."""
    for folder in "abcdef":
        write_image(tmp_path / "elsewhere" / folder / "x.png", 50)
        for other in set("abcdef") - {folder}:
            (tmp_path / "elsewhere" / folder / other).symlink_to(tmp_path / "elsewhere" / other)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "in" / "z").symlink_to(tmp_path / "elsewhere" / "a")
    inputs = Inputs(tmp_path / "in", SUFFIXES)
    found = ["a/x.png", "a/b/x.png", "a/b/c/x.png", "a/b/c/d/x.png", "a/b/c/d/e/x.png", "a/b/c/d/e/f/x.png"]
    assert list(inputs) == found == list(inputs)
    assert inputs.repeated[-1] == "z/"
    assert inputs.describe_passed_over().startswith(
        "passed over 11 folders that links had led to before, such"
    )


def test_a_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.png\r\n\n  s3://photos/b c.png \nsub/caf\xe9.png\n/abs/d.png")
    assert entries(path) == ["a.png", "s3://photos/b c.png", "sub/caf\udce9.png", "/abs/d.png"]
    assert Inputs(path, SUFFIXES).base == tmp_path.resolve()


def test_parquet_files_with_names(tmp_path):
    for number, names in enumerate((["a.png", "b.png"], ["http://x/c.png"])):
        pq.write_table(pa.table({"id": range(len(names)), "uri": names}), tmp_path / f"{number}.parquet")
    assert entries(tmp_path) == ["a.png", "b.png", "http://x/c.png"]
    assert entries(tmp_path / "1.parquet", "uri") == ["http://x/c.png"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_parquet_files_with_bytes(tmp_path, wrapped):
    contents = [b"first", b"second", None, b"fourth", b"fifth"]
    values = [{"bytes": value, "path": "x"} if wrapped else value for value in contents]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if wrapped else pa.binary()
    path = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": pa.array(values, kind)}), path, row_group_size=2)
    found = entries(path)
    assert [name_of(entry) for entry in found] == [f"photos.parquet#{row}" for row in range(5)]
    reader = ParquetBytes(tmp_path, None)
    for (name, row), content in zip(found, contents, strict=True):
        if content is None:
            with pytest.raises(ValueError, match=r"photos.parquet#2: cannot be read: the row has no bytes"):
                reader.read(name, row)
        else:
            assert reader.read(name, row) == content
    with pytest.raises(ValueError, match=r"other.parquet#0: cannot be read"):
        reader.read("other.parquet", 0)


def test_what_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n\n")
    (tmp_path / "data.txt").write_bytes(b"\0\1")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"a": ["x"], "b": [1], "c": ["y"]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"uri": ["x", None]}), tmp_path / "n.parquet")
    for name, column, message in (
        ("missing", None, "missing: no such file or folder"),
        ("empty", None, "no images in this folder or below it; images end in .png, .jpg"),
        ("list.txt", None, "list.txt: there are no images in it"),
        ("list.txt", "uri", "--column=uri: .*list.txt is not a Parquet file, nor has it any"),
        ("data.txt", None, "data.txt: line 1 has a null byte"),
        ("bad.parquet", None, "bad.parquet: "),
        ("t.parquet", None, "--column must say which .* there are a, b, c"),
        ("t.parquet", "z", "there is no column 'z'; there are a, b, c"),
        ("t.parquet", "b", "column 'b' is int64; it must have strings, bytes or structs with bytes"),
        ("n.parquet", None, r"n.parquet: column 'uri' has no name in row 1 \(from 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            entries(tmp_path / name, column)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_name_that_is_no_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    assert entries(tmp_path) == ["caf\udce9.png"]
