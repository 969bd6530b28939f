import json
import os

import pytest

from mrcnn_jax.many_images.inputs import name_of
from mrcnn_jax.many_images.job import Done, remove_unfinished
from tests.many_images.conftest import begin


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_ten_images_in_shards_of_four(tmp_path, images):
    names = [*map(str, range(8)), "caf\udce9", ["t.parquet", 3]]
    job = begin(tmp_path / "out", images, names)
    shards = list(job.shards())
    assert [shard[:3] for shard in shards] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    assert [job.entries(shard) for shard in shards] == [names[:4], names[4:8], names[8:]]
    assert name_of(names[-1]) == "t.parquet#3"
    assert job.unfinished() == shards
    job.finish(1, Done(4, 3, [{"image_id": 6, "image": "5", "error": "no"}], []))
    again = begin(tmp_path / "out", images, names)
    assert again == job and again.unfinished() == [shards[0], shards[2]]
    assert list(again.finished()) == [(1, Done(4, 3, [{"image_id": 6, "image": "5", "error": "no"}], []))]
    path, count = again.list_failed()
    assert count == 1 and json.loads(path.read_text()) == {"image_id": 6, "image": "5", "error": "no"}
    assert again.forget_failed() == 1 and again.unfinished() == shards


@pytest.mark.parametrize(
    ("images", "actors", "size"), [(10, 1, 2), (200, 2, 14), (200, 100, 2), (9000, 1, 1000), (1, 4, 2)]
)
def test_the_size_of_shards_suits_the_actors(tmp_path, images, actors, size):
    entries = map(str, range(images))
    assert begin(tmp_path / "out", tmp_path, entries, shard_size=None, actors=actors).shard_size == size
    # Another number of actors goes on with the same shards.
    again = begin(tmp_path / "out", tmp_path, map(str, range(images)), shard_size=None, actors=7)
    assert again.shard_size == size


def test_another_job_is_refused(tmp_path, images):
    begin(tmp_path / "out", images, ["a", "b", "c"])
    for changes, message in (
        ({"format": "jsonl"}, "--format: 'jsonl' here, 'parquet' there"),
        ({"shard_size": 5}, "--shard_size: 5 here, 4 there"),
        ({"made_with": {"--step": 8}}, "--step: 8 here, 7 there"),
        ({"base": tmp_path}, "folder of the images: "),
        ({"column": "uri"}, "--column: 'uri' here, None there"),
    ):
        with pytest.raises(ValueError, match=f"(?s)results of a job with other settings:.*{message}"):
            begin(tmp_path / "out", images, ["a", "b", "c"], **changes)
    for names, message in (
        (["a", "x", "c"], "image 2 is x here, b there, of 3"),
        (["a", "b"], "image 3 is none here, c there, of 3"),
        (["a", "b", "c", ["t.parquet", 0]], "image 4 is t.parquet#0 here, none there, of 3"),
    ):
        with pytest.raises(ValueError, match=f"results of a job with other images: {message}"):
            begin(tmp_path / "out", images, names)


def test_a_list_that_was_changed_is_refused(tmp_path, images):
    begin(tmp_path / "out", images, ["a", "b"])
    (tmp_path / "out" / "images.jsonl").write_text('"a"\n"x"\n')
    with pytest.raises(ValueError, match=r"images.jsonl: has changed since the job was begun"):
        begin(tmp_path / "out", images, ["a", "x"])


def test_other_files_are_kept(tmp_path, images):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"has files, such as thesis.tex, but is not the folder of a job"):
        begin(tmp_path / "out", images, ["a"])
    with pytest.raises(ValueError, match=r"is a file; --output must be a folder"):
        begin(tmp_path / "out" / "thesis.tex", images, ["a"])


def test_killed_before_the_manifest(tmp_path, images):
    def entries():
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "out", images, entries())
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "out" / "images.jsonl").write_text('"x"\n')
    (tmp_path / "out" / ".images.jsonl.123.tmp").touch()
    job = begin(tmp_path / "out", images, ["a", "b"])
    assert job.images == 2 and job.entries(next(job.shards())) == ["a", "b"]
    remove_unfinished(job)
    assert not list((tmp_path / "out").glob(".*"))


def test_files_that_a_live_process_writes_stay(tmp_path, images):
    job = begin(tmp_path / "out", images, ["a"])
    for number, folder in enumerate((tmp_path / "out", tmp_path / "out" / "results")):
        for name in ("old", "new"):
            (folder / f".{name}.tmp").touch()
        os.utime(folder / ".old.tmp", (1000 + number, 1000 + number))
    remove_unfinished(job, before=1002)
    assert [path.name for path in (tmp_path / "out").rglob("*.tmp")] == [".new.tmp"] * 2
    remove_unfinished(job)
    assert not list((tmp_path / "out").rglob("*.tmp"))
