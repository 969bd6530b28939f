import json
from functools import partial

import numpy as np
import pytest

from mrcnn_jax.many_images import worker as module
from mrcnn_jax.many_images.job import Job, Shard
from mrcnn_jax.many_images.part_files import read_rows
from mrcnn_jax.many_images.worker import Worker
from tests.many_images.conftest import BrightnessFinder, begin, result_of, write_image

MAKE = partial(Worker, score_threshold=0.0, max_pixels=1000)


def work(job, finder=None, make=MAKE):
    """The finder of a worker that has done all that is not done."""
    finder = finder or BrightnessFinder()
    worker = make(job, lambda: finder)
    for shard in job.unfinished():
        worker.process(shard)
    return finder


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_each_image_has_one_row(photos, tmp_path, form):
    job = begin(tmp_path / "out", photos, format=form)
    work(job)
    rows = list(job.rows())
    assert [row["image_id"] for row in rows] == list(range(1, 11))
    assert [row["image"] for row in rows] == [f"{number}.png" for number in range(10)]
    first = rows[0]
    assert (first["width"], first["height"], first["error"]) == (12, 8, None)
    assert first["objects"] == [
        {
            "category_id": 3,
            "category": "ball",
            "bbox": [1.0, 2.0, 3.0, 2.0],
            "score": 0.9,
            "segmentation": {"size": [8, 12], "counts": first["objects"][0]["segmentation"]["counts"]},
            "keypoints": None,
        },
        {
            "category_id": 7,
            "category": "figure",
            "bbox": [1.0, 2.0, 3.0, 2.125],
            "score": 0.1,
            "segmentation": first["objects"][0]["segmentation"],
            "keypoints": [1.5, 1.5, 1.0, 1.5, 1.5, 1.0],
        },
    ]
    failed = rows[3]
    assert failed["objects"] is None and failed["width"] is None
    assert failed["error"].startswith(f"{photos / '3.png'}: cannot be read: not an image")
    done = dict(job.finished())
    assert [done[number].images for number in range(3)] == [4, 4, 2]
    assert [failure["image"] for failure in done[0].failed] == ["3.png"]
    assert sum(part.objects for part in done.values()) == 2 + 3 + 4 + 6 + 7 + 8 + 9 + 10 + 1
    assert done[2].nearly_black == ["9.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "begun").iterdir()) == []


def test_both_formats_have_the_same_rows(photos, tmp_path):
    jobs = [begin(tmp_path / form, photos, format=form) for form in ("parquet", "jsonl")]
    for job in jobs:
        work(job)
    parquet, jsonl = (list(job.rows()) for job in jobs)
    assert parquet == jsonl
    assert [list(read_rows(job.part(1), ("image", "error"))) for job in jobs] == [
        [{"image": f"{number}.png", "error": None} for number in range(4, 8)]
    ] * 2


def test_results_do_not_depend_on_interruptions(photos, tmp_path):
    """A worker that dies leaves no part of a file; another begins its shard anew."""

    class Dying(BrightnessFinder):
        def attempt(self, sources, **options):
            for number, result in enumerate(super().attempt(sources, **options)):
                if number == 1:
                    raise KeyboardInterrupt
                yield result

    whole, broken = (begin(tmp_path / name, photos) for name in ("whole", "broken"))
    work(whole)
    for shard in broken.unfinished()[:2]:
        with pytest.raises(KeyboardInterrupt):
            Worker(broken, Dying, score_threshold=0.0, max_pixels=1000).process(shard)
    assert len(broken.unfinished()) == 3 and not list((tmp_path / "broken" / "results").iterdir())
    work(broken)
    for shard in whole.shards():
        assert whole.part(shard.number).read_bytes() == broken.part(shard.number).read_bytes()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_failed_images_are_tried_again_alone(photos, tmp_path, form):
    job = begin(tmp_path / "out", photos, format=form)
    work(job)
    before = list(job.rows())
    assert job.forget_failed() == 1
    assert work(job).seen == 1  # it is still damaged
    assert list(job.rows()) == before
    write_image(photos / "3.png", 30)
    assert job.forget_failed() == 1
    assert work(job).seen == 1
    rows = list(job.rows())
    assert len(rows[3]["objects"]) == 3 and rows[:3] + rows[4:] == before[:3] + before[4:]
    assert job.list_failed()[1] == 0 and job.forget_failed() == 0


@pytest.fixture
def black_and_damaged(photos):
    """In the first shard 1.png and 2.png are nearly black, and 2.png is damaged at first, as 3.png is."""
    write_image(photos / "1.png", 10)
    (photos / "2.png").write_bytes(b"not an image")
    (photos / "caf\udce9.png").write_bytes((photos / "1.png").read_bytes())
    return photos, ["caf\udce9.png", "1.png", "2.png", "3.png"]


def test_images_that_are_tried_again_leave_the_nearly_black_ones(black_and_damaged, tmp_path):
    photos, names = black_and_damaged
    job = begin(tmp_path / "out", photos, names)
    for wanted in (["caf\\xe9.png", "1.png"], ["caf\\xe9.png", "1.png", "2.png"]):
        work(job)
        assert dict(job.finished())[0].nearly_black == wanted
        assert job.forget_failed()
        write_image(photos / "2.png", 10)
    write_image(photos / "3.png", 40)
    assert work(job).seen == 1
    assert dict(job.finished())[0].nearly_black == wanted and not list((tmp_path / "out" / "begun").iterdir())


@pytest.mark.parametrize("number", [0, 1])
def test_killed_between_the_file_of_a_shard_and_its_mark(black_and_damaged, tmp_path, monkeypatch, number):
    """At once, and when the images that failed are tried again."""
    photos, names = black_and_damaged
    job = begin(tmp_path / "out", photos, names)
    if number:
        work(job)
        job.forget_failed()
    write_image(photos / "2.png", 10)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, "finish", killed)
        work(job)
    assert work(job).seen == 1
    assert dict(job.finished())[0].nearly_black == ["caf\\xe9.png", "1.png", "2.png"]


def test_a_worker_that_comes_too_late_leaves_the_nearly_black_ones(black_and_damaged, tmp_path):
    """Another one has finished the shard."""
    photos, names = black_and_damaged
    job = begin(tmp_path / "out", photos, names)
    work(job)
    before = dict(job.finished())
    MAKE(job, BrightnessFinder).process(next(job.shards()))
    assert dict(job.finished()) == before and before[0].nearly_black


def test_limits(photos, tmp_path):
    write_image(photos / "0.png", 40, size=(20, 51))
    job = begin(tmp_path / "out", photos)
    work(job, make=partial(Worker, score_threshold=0.5, max_pixels=1000))
    rows = list(job.rows())
    assert (
        rows[0]["error"] == f"{photos / '0.png'}: has 51 x 20 pixels; must have at most 1000 (--max_pixels)"
    )
    scores = result_of(np.full((8, 12, 3), 60, np.uint8)).scores
    assert len(rows[4]["objects"]) == (scores >= 0.5).sum() < len(scores)


def test_an_image_that_kills_its_worker(photos, tmp_path):
    """The shard is done one by one in the end, and the image listed."""

    class Killed(BrightnessFinder):
        def attempt(self, sources, *, inspect=None):
            def source_of(source):
                image = source()
                if image[0, 0, 0] == 40:  # 2.png
                    raise MemoryError
                return image

            yield from super().attempt((partial(source_of, source) for source in sources), inspect=inspect)

    job = begin(tmp_path / "out", photos)
    deaths = 0
    while job.unfinished():
        try:
            work(job, Killed())
        except MemoryError:
            deaths += 1
    assert deaths == module._BEGUN_BEFORE_CARE + module._DEATHS
    rows = list(job.rows())
    assert rows[2]["error"] == f"{photos / '2.png'}: the process that worked on it died, 2 times"
    assert [row["image_id"] for row in rows if row["error"]] == [3, 4]
    assert len(rows[1]["objects"]) == 3 and not list((tmp_path / "out" / "begun").iterdir())


def test_a_batch_of_ray_data(photos, tmp_path):
    job = begin(tmp_path / "out", photos)
    shards = list(job.shards())
    batch = {name: np.array([getattr(shard, name) for shard in shards]) for name in Shard._fields}
    summary = MAKE(job, BrightnessFinder)(batch)
    assert summary["shard"].tolist() == [0, 1, 2] and summary["images"].tolist() == [4, 4, 2]
    assert summary["failed"].tolist() == [1, 0, 0] and not job.unfinished()


def test_names_that_are_no_utf8(photos, tmp_path):
    job = begin(tmp_path / "out", photos, ["caf\udce9.png"])
    work(job)
    (row,) = job.rows()
    assert row["image"] == "caf\\xe9.png" and json.dumps(row)
