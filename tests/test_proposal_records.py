"""Records of proposals, and the file that is written from them."""

import tracemalloc

import numpy as np

from mrcnn_jax.proposal_records import Record, RecordWriter, find_records, write_npz
from mrcnn_jax.proposals import read_made_with, read_proposals

BOXES = np.array([[0, 0, 5, 5], [1, 2, 3, 4]])


def write(path, image_id, objectness):
    with RecordWriter(path) as writer:
        return writer.append(image_id, BOXES[: len(objectness)], np.array(objectness))


def test_records_by_hand(tmp_path):
    path = tmp_path / "a"
    written = [write(path, 7, [-1.0, 2.0]), write(path, 3, []), write(path, 5, [0.5])]
    assert written == [Record(7, path, 16, 2), Record(3, path, 72, 0), Record(5, path, 88, 1)]
    assert path.stat().st_size == written[-1].end == 108
    content = path.read_bytes()
    assert np.frombuffer(content[:16], "<i8").tolist() == [7, 2]
    assert np.frombuffer(content[16:56], "<f4").tolist() == [1, 2, 3, 4, 0, 0, 5, 5, 2, -1]  # best first
    assert find_records(path) == written


def test_a_record_that_was_not_finished_is_not_found(tmp_path):
    path = tmp_path / "a"
    written = [write(path, 7, [-1.0, 2.0]), write(path, 5, [0.5])]
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert find_records(path) == [record for record in written if record.end <= size]


def test_it_is_dropped_when_the_next_is_written(tmp_path):
    path = tmp_path / "a"
    first, lost = write(path, 7, [-1.0, 2.0]), write(path, 5, [0.5])
    path.write_bytes(path.read_bytes()[: lost.end - 1])
    assert [first, write(path, 3, [0.5])] == [first, Record(3, path, lost.start, 1)] == find_records(path)


def test_the_file_from_records_of_two_processes(tmp_path):
    first = [write(tmp_path / "a", 7, [-1.0, 2.0]), write(tmp_path / "a", 5, [])]
    second = write(tmp_path / "b", 3, [0.5])
    for name in ("p.npz", "again.npz"):
        assert write_npz(tmp_path / name, [second, *first], made_with='{"step": 4}') == 3
    assert (tmp_path / "p.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    file = read_proposals(tmp_path / "p.npz")
    assert file.ids.tolist() == [3, 7, 5] and file.offsets.tolist() == [0, 1, 3, 3]
    assert file.boxes.tolist() == [[0, 0, 5, 5], [1, 2, 3, 4], [0, 0, 5, 5]]
    assert file.objectness.tolist() == [0.5, 2, -1]
    assert read_made_with(tmp_path / "p.npz") == {"step": 4}


def test_memory_does_not_grow_with_the_proposals(tmp_path):
    boxes, objectness = np.ones((1000, 4)), np.ones(1000)
    with RecordWriter(tmp_path / "a") as writer:
        for image_id in range(500):
            writer.append(image_id, boxes, objectness)
    tracemalloc.start()
    try:
        assert write_npz(tmp_path / "p.npz", find_records(tmp_path / "a"), made_with="") == 500_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "p.npz").stat().st_size > 10_000_000 > 10 * peak


def test_files_that_do_not_say_what_they_were_made_with(tmp_path):
    write_npz(tmp_path / "p.npz", [], made_with="")
    (tmp_path / "text.npz").write_text("mine")
    for made_with in ("[]", "{"):
        write_npz(tmp_path / f"{made_with}.npz", [], made_with=made_with)
    assert len(paths := list(tmp_path.iterdir())) == 4
    assert [read_made_with(path) for path in paths] == [None] * 4
