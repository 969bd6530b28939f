"""Proposals on disk until all images are done."""

import json

import numpy as np
import pytest

from mrcnn_jax.inference.partial_proposals import PartialProposals, begin_proposals, remove_partial
from mrcnn_jax.proposals import ImageProposals, read_made_with, read_proposals

MADE_WITH = {"step": 4, "sides": (1, 2)}
IDS = [9, 7, 8]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "p.npz"


def proposals(number):
    """As many as the image's id, of this height."""
    boxes = np.tile(np.array([0, 0, 1, number], np.float32), (number, 1))
    return ImageProposals(boxes, np.arange(number, dtype=np.float32))


def work(output, *ids, process=0):
    """A run that is interrupted after these images, and what it found done at its start."""
    begin_proposals(output, MADE_WITH)
    with PartialProposals(output, process=process) as partial:
        done = [image_id for image_id in IDS if partial.is_done(image_id)]
        for image_id in ids:
            partial.append(image_id, proposals(image_id))
            assert partial.is_done(image_id)
    return partial, done


def test_a_killed_run_goes_on_to_the_same_file(output):
    whole = output.with_name("whole.npz")
    assert work(whole, *IDS)[0].write(IDS) == 24
    work(output, 8)
    with (output.with_name("p.npz.partial") / "0.records").open("ab") as file:
        file.write(b"half of a record\0\0")
    partial, done = work(output, 7, 9)
    assert done == [8] and not partial.missing(IDS)
    assert partial.write(IDS) == 24
    assert output.read_bytes() == whole.read_bytes()
    assert {path.name for path in output.parent.iterdir()} == {"p.npz", "whole.npz"}
    file = read_proposals(output)
    assert file.ids.tolist() == IDS and file.offsets.tolist() == [0, 9, 16, 24]
    assert file.boxes[[0, 9, 16], 3].tolist() == IDS
    assert read_made_with(output) == {"step": 4, "sides": [1, 2]}


def test_processes_have_a_file_each(output):
    partial, _ = work(output, 9)
    assert partial.missing(IDS) == 2
    assert work(output, 8, process=1)[1] == [9]
    assert partial.missing(IDS) == 1
    work(output, 7, process=2)
    assert not partial.missing(IDS) and partial.write(IDS) == 24


def test_other_settings_are_an_error(output):
    begin_proposals(output, MADE_WITH | {"step": 3})  # nothing is lost
    work(output, 8)
    with pytest.raises(ValueError, match=r"npz\.partial has .* other settings:\n  step: 5 here, 4 there\n"):
        begin_proposals(output, MADE_WITH | {"step": 5})
    assert work(output)[1] == [8]


def test_two_runs_do_not_write_the_same_file(output):
    begin_proposals(output, MADE_WITH)
    with PartialProposals(output, process=0) as first:
        first.append(8, proposals(8))
        begin_proposals(output, MADE_WITH)
        with pytest.raises(BlockingIOError, match=r"another run is writing here.*0\.records"):
            PartialProposals(output, process=0)
        with PartialProposals(output, process=1):  # another process of the same run
            first.append(7, proposals(7))
    assert work(output, 9)[1] == [7, 8]


def test_no_file_is_written_over(output):
    partial, _ = work(output, *IDS)
    output.write_text("mine")
    with pytest.raises(FileExistsError, match=r"p\.npz: already exists"):
        partial.write(IDS)
    assert output.read_text() == "mine" and work(output)[1] == IDS


def test_removing_leaves_files_of_others(output):
    remove_partial(output)
    work(output, 8)
    mine = output.with_name("p.npz.partial") / "mine.json"
    mine.write_text(json.dumps("mine"))
    remove_partial(output)
    assert [path.name for path in mine.parent.iterdir()] == ["mine.json"]
