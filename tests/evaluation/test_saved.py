"""Results lists read again, and what is wrong with others."""

import json

import pytest

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.evaluation.saved import read_saved
from tests.evaluation.test_lvis import as_source, encode, load_script
from tests.report.hand_made import entries, make_run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_validation_source(make_run(tmp_path_factory.mktemp("run")))


def read(tmp_path, source, found, kinds=("bbox", "segm", "keypoints")):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(found))
    return read_saved(path, source, list(kinds))


def test_entries_come_in_the_order_of_the_images(tmp_path, source):
    found = entries()
    assert read(tmp_path, source, found) == found
    assert read(tmp_path, source, [*found[3:], *found[:3]]) == found
    assert read(tmp_path, source, []) == []


def test_what_is_not_measured_may_be_absent(tmp_path, source):
    found = entries(masks=False, keypoints=False)
    assert read(tmp_path, source, found, ("bbox",)) == found


def test_only_what_counts_is_kept_of_lvis(tmp_path):
    truth, found = load_script().make_case("plain", encode)
    source = as_source(truth)
    kept = read(tmp_path, source, found, ("bbox", "segm"))
    assert 0 < len(kept) < 0.8 * len(found)


def changed(**values):
    found = entries()
    found[1] |= values
    return found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (changed(image_id=8), r"found\.json: image ids \[8\] are not in .*val\.json; the detections must be"),
        (changed(category_id=4), r"found\.json: category ids \[4\] are not in .*val\.json"),
        (changed(score="high"), r"found\.json: \[1\]: score must be a number, got 'high'"),
        (changed(score=1.5), r"found\.json: \[1\]: score must be between 0 and 1, got 1\.5"),
        (changed(score=-1), r"found\.json: \[1\]: score must be between 0 and 1, got -1"),
        (changed(bbox=[1, 2, 3]), r"found\.json: \[1\]: bbox must be 4 numbers, got \[1, 2, 3\]"),
        (changed(keypoints=[1, 2, 2]), r"found\.json: \[3\]: has 2 keypoints; category_id 7 has 1 before"),
        (
            [entry | {"keypoints": [1, 2, 2]} for entry in entries() if entry["category_id"] == 7],
            r"found\.json: \[\d\]: keypoints must be 6 numbers, got \[1, 2, 2\]",
        ),
        (changed(segmentation=None), r"found\.json: \[1\]: segmentation must be an RLE"),
        (
            changed(segmentation={"size": [2, 2], "counts": [4]}),
            r"found\.json: \[1\]: its mask is 2 x 2 pixels, its image 40 x 60",
        ),
        (
            changed(segmentation={"size": [40, 60], "counts": [4]}),
            r"found\.json: \[1\]: RLE counts must be >= 0 and sum to",
        ),
        ({"images": []}, r"found\.json: must be a COCO results list; it holds an object"),
    ],
)
def test_errors(tmp_path, source, found, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, source, found)
