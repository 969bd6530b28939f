import pytest

from mrcnn_jax.json_files import read_json
from mrcnn_jax.training import history
from mrcnn_jax.training.history import History


def test_scores_of_a_run_and_of_the_run_that_resumes_it(tmp_path):
    first = History(tmp_path, step=0)
    for step, bbox in ((9, 10.0), (10, 12.5), (11, 11.0)):
        first.add(step, {"bbox": bbox, "segm": 3.0})
    first.add(12, {})  # nothing to measure
    assert read_json(tmp_path / "validation" / "scores.json")["10"] == {"bbox": 12.5, "segm": 3.0}
    assert History(tmp_path, step=12).scores == first.scores
    assert list(History(tmp_path, step=10).scores) == [9, 10]


def test_reasons_by_hand(tmp_path):
    run = History(tmp_path, step=0)
    assert run.reason_to_stop(1) is None
    stops = []
    for step, (bbox, segm) in enumerate([(10, 30), (30, 12), (41, 1), (20, 20), (50, 0)], start=1):
        run.add(step, {"bbox": float(bbox), "segm": float(segm)})
        stops.append([run.reason_to_stop(patience) is not None for patience in (0, 1, 2, 3)])
    # The means are 20, 21, 21, 20 and 25: only those of steps 1, 2 and 5 are better than all before.
    assert [sum(stop) for stop in stops] == [0, 0, 1, 2, 0]
    assert not any(stop[0] for stop in stops)


def test_other_processes_are_told_and_do_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(history.hosts, "is_main_process", lambda: False)
    monkeypatch.setattr(
        history.hosts, "all_gather", lambda own: [[[5, {"bbox": 1.0}]], own] if own == [] else []
    )
    run = History(tmp_path, step=9)
    run.add(7, {"bbox": 2.0})
    assert run.scores == {5: {"bbox": 1.0}, 7: {"bbox": 2.0}} and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"1": []}', '{"1": {}}', '{"x": {"bbox": 1}}', '{"1": {"bbox": "1"}}']
)
def test_a_file_that_is_not_of_scores(tmp_path, text):
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=r"scores.json: must have an object of scores for each step"):
        History(tmp_path, step=1)
