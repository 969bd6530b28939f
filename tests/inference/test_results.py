import dataclasses
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.inference.draw import draw
from mrcnn_jax.inference.results import Result, to_result
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections


def detections(*, padding: float = 0.0) -> Detections:
    """A ball and a figure in a resized image of 40 x 80, a box outside it, and rows of ``padding``."""
    boxes = np.full((6, 4), padding, np.float32)
    boxes[0] = 10, 10, 30, 20
    boxes[1] = 60, 0, 90, 44  # over the right and the bottom edge
    boxes[3] = 85, 5, 95, 15  # valid, but outside
    scores = np.full(6, padding, np.float32)
    scores[[0, 1, 3]] = 0.9, 0.8000001, 0.7
    labels = np.full(6, 99 if padding else 0, np.int32)
    labels[[0, 1, 3]] = 1, 2, 1
    masks = np.full((6, 4, 4), padding, np.float32)
    masks[0] = [1, 1, 0, 0]  # the left half
    masks[1] = 1
    keypoints = np.full((6, 3, 3), padding, np.float32)
    keypoints[1] = [[70, 4, 5], [64, 30, 2], [100, 30, 1]]
    keypoints[[0, 3]] = 7
    return Detections(
        boxes=boxes,
        scores=scores,
        labels=labels,
        valid=np.array([True, True, False, True, False, False]),
        masks=masks,
        keypoints=keypoints,
    )


def make(found: Detections, categories: Categories) -> Result:
    """The result in an original image of 20 x 160: half as high, twice as wide."""
    return to_result(found, size=(40, 80), image_size=(20, 160), categories=categories, path=Path("in/a.jpg"))


def test_scaled_clipped_and_named(categories: Categories) -> None:
    result = make(detections(), categories)
    assert len(result) == 2
    np.testing.assert_array_equal(result.boxes, [[20, 5, 60, 10], [120, 0, 160, 20]])
    assert result.scores.tolist() == pytest.approx([0.9, 0.8])
    assert result.labels.tolist() == [1, 2]
    assert result.names == ["ball", "figure"]
    assert result.keypoints is not None and result.keypoints.shape == (2, 3, 3)
    np.testing.assert_array_equal(result.keypoints[0], 0)  # a ball has no keypoints
    np.testing.assert_array_equal(result.keypoints[1], [[140, 2, 5], [128, 15, 2], [200, 15, 1]])


def test_masks_lie_in_the_original_image(categories: Categories) -> None:
    masks = make(detections(), categories).masks
    assert masks is not None and masks.shape == (2, 20, 160) and masks.dtype == bool
    expected = np.zeros((20, 160), bool)
    expected[5:10, 20:40] = True
    expected[[5, 5, 9, 9], [20, 39, 20, 39]] = False  # 0.9 * 0.55 is under a half
    np.testing.assert_array_equal(masks[0], expected)
    assert masks[1, 2:-2, 120:].all() and not masks[1, :, :120].any()


@pytest.mark.parametrize("padding", [-1.0, 1e9, np.nan, np.inf])
def test_padding_changes_nothing(categories: Categories, padding: float) -> None:
    expected, result = make(detections(), categories), make(detections(padding=padding), categories)
    for field in ("boxes", "scores", "labels", "keypoints", "masks"):
        np.testing.assert_array_equal(getattr(result, field), getattr(expected, field))


def test_coco_entries_are_plain(categories: Categories) -> None:
    result = make(detections(), categories)
    ball, figure = json.loads(json.dumps(result.to_coco(42)))
    mask = ball.pop("segmentation")
    assert ball == {
        "image_id": 42,
        "file_name": "a.jpg",
        "category_id": 3,
        "category": "ball",
        "bbox": [20, 5, 40, 5],
        "score": 0.9,
    }
    assert result.masks is not None
    np.testing.assert_array_equal(Rle.from_json(mask).decode(), result.masks[0])
    assert figure["keypoints"] == [140, 2, 1, 128, 15, 1, 200, 15, 1]
    assert figure["score"] == 0.8


def test_the_keypoint_offset_is_subtracted_in_coco_entries(categories: Categories) -> None:
    result = to_result(
        detections(), size=(40, 80), image_size=(20, 160), categories=categories, keypoint_offset=0.5
    )
    assert result.keypoints is not None
    np.testing.assert_array_equal(result.keypoints[1, 0], [140, 2, 5])
    assert "file_name" not in result.to_coco(1)[0]  # the image did not come from a file
    assert result.above(0.0).to_coco(1)[1]["keypoints"] == [139.5, 1.5, 1, 127.5, 14.5, 1, 199.5, 14.5, 1]


def test_without_masks_and_keypoints(categories: Categories) -> None:
    result = make(detections().replace(masks=None, keypoints=None), categories)
    assert result.masks is None and result.segmentations is None and result.keypoints is None
    assert result.polygons() is None and len(result[:1]) == 1
    assert set(result.to_coco(1)[1]) == {"image_id", "file_name", "category_id", "category", "bbox", "score"}


def test_nothing_found(categories: Categories) -> None:
    result = make(detections().replace(valid=np.zeros(6, bool)), categories)
    assert len(result) == 0 and result.names == [] and result.to_coco(1) == []
    assert result.masks is not None and result.masks.shape == (0, 20, 160)


def test_nan_box_is_dropped(categories: Categories) -> None:
    found = detections()
    found.boxes[0, 2] = np.nan
    assert make(found, categories).names == ["figure"]


def test_above_a_score(categories: Categories) -> None:
    result = make(detections(), categories).above(0.85)
    assert result.names == ["ball"] and result.file_name == "a.jpg"
    assert result.masks is not None and len(result.masks) == 1
    assert result.keypoints is not None and len(result.keypoints) == 1
    assert result.above(float(result.scores[0])).names == ["ball"]  # the threshold itself is kept


def test_some_of_the_objects(categories: Categories) -> None:
    result = make(detections(), categories)
    chosen: list[tuple[Any, list[str]]] = [
        (1, ["figure"]),
        (np.int64(-2), ["ball"]),
        (slice(None, None, -1), ["figure", "ball"]),
        (result.labels == 2, ["figure"]),
        ([1, 0, 1], ["figure", "ball", "figure"]),
        ([], []),
    ]
    for index, names in chosen:
        part = result[index]
        assert part.names == names and len(part.boxes) == len(part.scores) == len(names)
        assert part.masks is not None and part.keypoints is not None
        assert len(part.masks) == len(part.keypoints) == len(names)
        assert (part.file_name, part.image_size) == ("a.jpg", (20, 160))
    np.testing.assert_array_equal(result[1].boxes, [[120, 0, 160, 20]])
    assert [each.names for each in result] == [["ball"], ["figure"]]  # iterating ends
    with pytest.raises(IndexError, match="out of bounds"):
        result[2]
    with pytest.raises(IndexError, match="boolean"):
        result[np.array([True])]


def test_repr_is_short(categories: Categories) -> None:
    result = make(detections(), categories)
    assert repr(result) == "Result(2 objects in 20 x 160: ball 0.90, figure 0.80)"
    assert repr(result[[]]) == "Result(no objects in 20 x 160)"
    assert repr(result[0]) == "Result(1 object in 20 x 160: ball 0.90)"
    many = ", ".join(["ball 0.90"] * 5)
    assert repr(result[[0] * 6]) == f"Result(6 objects in 20 x 160: {many}, ...)"


def test_polygons_lie_in_the_original_image(categories: Categories) -> None:
    found = detections()
    found.masks[1, 1:3, 1:3] = 0
    result = make(found, categories)
    polygons, without_holes = result.polygons(), result.polygons(holes=False)
    assert polygons is not None and without_holes is not None and result.masks is not None
    assert [len(of_object) for of_object in polygons] == [1, 2]
    assert [len(of_object) for of_object in without_holes] == [1, 1]
    corners = polygons[0][0]
    rows, columns = np.nonzero(result.masks[0])
    assert corners.min(axis=0).tolist() == [columns.min(), rows.min()]
    assert corners.max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]


def test_plot_reads_the_image_again_or_takes_it(categories: Categories, tmp_path: Path) -> None:
    pixels = np.full((20, 160, 3), 90, np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(pixels).save(photo)
    of_file = to_result(detections(), size=(40, 80), image_size=(20, 160), categories=categories, path=photo)
    expected = draw(pixels, of_file)
    np.testing.assert_array_equal(np.asarray(of_file.plot()), expected)
    of_file[:1].save(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), draw(pixels, of_file[:1]))

    of_array = to_result(detections(), size=(40, 80), image_size=(20, 160), categories=categories)
    sources: list[Any] = [pixels, Image.fromarray(pixels), photo, str(photo)]
    for source in sources:
        np.testing.assert_array_equal(np.asarray(of_array.plot(source)), expected)
    with pytest.raises(ValueError, match=r"did not come from a file: give it, as in plot\(image\)"):
        of_array.plot()
    with pytest.raises(ValueError, match=r"\[3, 3, 3\]; this result is of a uint8 image \[20, 160, 3\]"):
        of_array.plot(pixels[:3, :3])


@dataclasses.dataclass
class SupervisionDetections:
    """Stands in for ``supervision.Detections``, with the fields and checks of supervision 0.31."""

    xyxy: np.ndarray
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    class_id: np.ndarray | None = None
    tracker_id: np.ndarray | None = None
    data: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        assert self.xyxy.shape == (count, 4) and np.isfinite(self.xyxy).all()
        assert self.mask is None or (self.mask.ndim == 3 and len(self.mask) == count)
        assert self.mask is None or self.mask.dtype == bool
        for array in (self.confidence, self.class_id, self.tracker_id):
            assert array is None or array.shape == (count,)
        assert all(len(values) == count for values in self.data.values())


@pytest.fixture(params=["stand-in", "installed"])
def supervision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library's ``Detections``, or a class that stands in for it, as the library is optional."""
    if request.param == "installed":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns if OpenCV is not installed
            return pytest.importorskip("supervision").Detections
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SupervisionDetections))
    return SupervisionDetections


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("keypoints", [True, False])
def test_to_supervision(categories: Categories, supervision: Any, masks: bool, keypoints: bool) -> None:
    found = detections()
    found = found.replace(
        masks=found.masks if masks else None, keypoints=found.keypoints if keypoints else None
    )
    result = make(found, categories)
    for part in (result, result[1], result[[]]):
        theirs = part.to_supervision()
        assert type(theirs) is supervision
        np.testing.assert_array_equal(theirs.xyxy, part.boxes)
        np.testing.assert_array_equal(theirs.confidence, part.scores)
        assert theirs.class_id.tolist() == [label - 1 for label in part.labels.tolist()]
        assert theirs.data["class_name"].tolist() == part.names and theirs.tracker_id is None
        if masks:
            np.testing.assert_array_equal(theirs.mask, part.masks)
            assert theirs.mask.dtype == bool
        else:
            assert theirs.mask is None


def test_to_supervision_needs_the_library(categories: Categories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        make(detections(), categories).to_supervision()


def test_label_without_category_is_an_error(categories: Categories) -> None:
    found = detections()
    found.labels[0] = 3
    with pytest.raises(ValueError, match="labels 2 to 3; with 2 categories labels are 1 to 2"):
        make(found, categories)
