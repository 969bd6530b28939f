"""On three images with six detections, which ``hand_made`` explains."""

import numpy as np
import pytest

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.evaluation import diagnosis
from mrcnn_jax.evaluation.diagnosis import Fate
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.evaluation.measured import Measured, kinds_of, measure
from mrcnn_jax.evaluation.mistakes import describe_mistake
from mrcnn_jax.evaluation.pictures import objects_of
from tests.report.hand_made import FOUND, IDS, OBJECTS, entries, make_run

SCORES = np.array([score for *_, score in FOUND])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory):
    config = make_run(tmp_path_factory.mktemp("run"))
    source = open_validation_source(config)
    assert kinds_of(config, source) == ["bbox", "segm", "keypoints"]
    return source


@pytest.fixture(scope="module", params=["bbox", "segm"])
def measured(source, request) -> Measured:
    return measure(ground_truth(source), entries(), request.param, source)


def test_curves(measured):
    found = diagnosis.curves(measured)
    assert found.precision.shape == (10, 101, 3)
    assert (found.precision[:, :, 2] == -1).all()  # no objects
    np.testing.assert_allclose(found.precision[0, :, 0], 1)
    np.testing.assert_allclose(found.precision[0, :, 1], np.where(found.recalls <= 0.5, 0.5, 0))
    ap = diagnosis.ap_of_categories(measured)
    figure = round(100 * 51 / 101 / 2, 3)
    assert ap["AP"] == ap["AP50"] == [100, figure, None]
    assert list(ap) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert ap["APl"] == [None] * 3 and ap["APs"] == [100, figure, None]  # all have less than 32 x 32 pixels


def test_fates(measured):
    found = diagnosis.matching(measured, SCORES, len(OBJECTS))
    matched, unmatched, ignored = Fate.MATCHED, Fate.UNMATCHED, Fate.IGNORED
    assert found.detections.tolist() == [matched, matched, unmatched, unmatched, unmatched, ignored]
    assert found.objects.tolist() == [matched, matched, unmatched, ignored]
    assert found.object_of.tolist() == [0, 1, -1, -1, -1, -1]
    assert found.found(0.85).tolist() == [True, False, False, False]


def test_thresholds(measured):
    matches = diagnosis.matching(measured, SCORES, len(OBJECTS))
    found = diagnosis.thresholds(matches)
    assert found.scores.tolist() == [0.95, 0.9, 0.8, 0.7, 0.6]
    np.testing.assert_allclose(found.precision, [0, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    np.testing.assert_allclose(found.recall, np.array([0, 1, 2, 2, 2]) / 3)
    assert found.best == 0.8
    balls = np.array([category == FOUND[0][1] for _, category, *_ in FOUND])
    objects = np.array([category == FOUND[0][1] for _, category, _ in OBJECTS])
    assert diagnosis.thresholds(matches, balls, objects).scores.tolist() == [0.9, 0.7]


def test_equal_scores_are_one_threshold(measured):
    matches = diagnosis.matching(measured, np.full(len(FOUND), 0.5), len(OBJECTS))
    found = diagnosis.thresholds(matches)
    assert found.scores.tolist() == [0.5] and found.precision.tolist() == [2 / 5]


def test_errors(measured):
    found = diagnosis.tide_errors(measured)
    assert found.counts == {"Cls": 1, "Loc": 1, "Both": 0, "Dupe": 0, "Bkg": 1, "Miss": 0}
    assert found.lost["Both"] == found.lost["Dupe"] == 0 < found.lost["Loc"]


def test_confusions(measured):
    found = diagnosis.confusion_matrix(measured, 0.65)
    # The ball of 0.7 lies on a figure that a better detection matches already.
    assert found.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert diagnosis.confusion_matrix(measured, 0.99).tolist()[1] == [0, 0, 0, 2]


def test_calibration(measured):
    found = diagnosis.calibration(measured)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert found.correct[6:].tolist() == [0, 0, 1, 0.5]
    error = (0.6 + 0.7 + 0.2 + 2 * abs((0.95 + 0.9) / 2 - 0.5)) / 5
    assert found.error == pytest.approx(error)


def test_keypoints(source):
    found = measure(ground_truth(source), entries(), "keypoints", source)
    assert found.labels == (2,) and diagnosis.curves(found).precision.shape == (10, 101, 1)
    assert "APs" not in diagnosis.ap_of_categories(found)
    assert diagnosis.calibration(found).counts.sum() == 3


def test_nothing_found(source):
    found = measure(ground_truth(source), [], "bbox", source)
    assert found.metrics.summary["AP"] == 0
    matches = diagnosis.matching(found, np.zeros(0), len(OBJECTS))
    none = np.zeros(len(OBJECTS), bool)
    assert diagnosis.thresholds(matches, objects=none).best is None
    assert diagnosis.thresholds(matches).best is None and not matches.found(0).any()
    assert diagnosis.tide_errors(found).counts["Miss"] == 3
    assert diagnosis.calibration(found).counts.sum() == 0
    assert diagnosis.confusion_matrix(found, 0.5)[:, -1].tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_mistakes_in_words(source, kind):
    names = {number: name for name, number in IDS.items()}
    found = entries()
    figure = names[7]

    def said(row: int, index: int) -> str:
        return describe_mistake(found[row], objects_of(source, index), kind, names)

    assert said(2, 0) == f"annotated as {figure} (IoU 1.00)"
    assert said(3, 1) == "nothing is annotated there"
    assert said(4, 2) == "inaccurate: IoU 0.38 with the object"
    assert said(5, 2) == "nothing is annotated there"  # the crowd does not count
    assert said(1, 0) == "a second detection of the same object (IoU 1.00)"
    found[4]["category_id"] = 3
    assert said(4, 2) == f"inaccurate, and annotated as {figure} (IoU 0.38)"
