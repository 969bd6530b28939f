"""What is written, read back by the tools' own libraries, where these are installed.

None is a dependency of this project; docs/tools.md has the versions that were tried.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.tool_formats.label_studio import brush_runs
from tests.tool_formats.conftest import Write, WriteKeypoints
from tests.tool_formats.examples import KEYPOINTS, NAMES, OBJECTS, best_ious, iou

MASKS = ("whole", "ring", "two parts", "other image")


def detections_of(dataset) -> list[tuple[str, np.ndarray]]:
    """The masks of supervision's data set, with the names of their categories."""
    return [
        (dataset.classes[label], mask)
        for _, _, found in dataset
        for label, mask in zip(found.class_id, found.mask, strict=True)
        if mask.any()
    ]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # its own
def test_pycocotools(write: Write) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(str(write("coco", tolerance=0.0) / "labels.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    found = [
        (coco.cats[entry["category_id"]]["name"], coco.annToMask(entry) > 0)
        for entry in annotations
        if entry["segmentation"]
    ]
    assert best_ious(found, MASKS) == dict.fromkeys(MASKS, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "bound"), [("coco", 0.9), ("yolo", 0.87)])
def test_supervision(write: Write, format: str, bound: float) -> None:
    """It fills polygons with their edges included, as OpenCV does, so masks are wider by a pixel."""
    supervision = pytest.importorskip("supervision")
    folder = write(format)
    photos = str(folder.parent / "photos")
    if format == "coco":
        dataset = supervision.DetectionDataset.from_coco(
            photos, str(folder / "labels.json"), force_masks=True
        )
        expected = MASKS
    else:
        arguments = str(folder / "labels"), str(folder / "data.yaml")
        dataset = supervision.DetectionDataset.from_yolo(photos, *arguments, force_masks=True)
        expected = MASKS[:-1]  # it does not look into folders
    assert list(dataset.classes) == list(NAMES.values())
    assert min(best_ious(detections_of(dataset), expected).values()) >= bound


@pytest.mark.slow
def test_supervision_reads_voc(write: Write) -> None:
    supervision = pytest.importorskip("supervision")
    folder = write("voc")
    dataset = supervision.DetectionDataset.from_pascal_voc(
        str(folder.parent / "photos"), str(folder / "Annotations")
    )
    (boxes,) = [found.xyxy for path, _, found in dataset if path.endswith("a.png")]
    np.testing.assert_array_equal(boxes[0], [3, 3, 27, 27])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves images open
def test_labelme(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    label_file = pytest.importorskip("labelme._label_file")
    shape = pytest.importorskip("labelme.utils.shape")
    folder = write("labelme")
    found = []
    for name in ("a.json", "sub/b b.json"):
        file = label_file.LabelFile(str(folder / name))
        groups: dict[object, tuple[str, np.ndarray]] = {}
        size = OBJECTS["whole" if name == "a.json" else "other image"][3].shape
        for number, entry in enumerate(file.shapes):
            assert set(entry) >= {"label", "points", "shape_type", "group_id", "mask", "description"}
            if entry["shape_type"] == "rectangle":
                continue
            if entry["mask"] is not None:
                (x1, y1), (x2, y2) = np.array(entry["points"], int)
                pixels = np.zeros(size, bool)
                pixels[y1 : y2 + 1, x1 : x2 + 1] = entry["mask"]
            else:
                pixels = shape.shape_to_mask(size, entry["points"], entry["shape_type"])
            key = ("group", entry["group_id"]) if entry["group_id"] else number
            before = groups.get(key, (entry["label"], np.zeros(size, bool)))[1]
            groups[key] = entry["label"], before | pixels
        found += groups.values()
    ious = best_ious(found, MASKS)
    assert ious["ring"] == 1.0
    assert min(ious.values()) >= 0.9  # it draws the edges of polygons, too


@pytest.mark.slow
def test_label_studio(write: Write) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    folder = write("label_studio")
    config = interface((folder / "config.xml").read_text())
    found = []
    for task in json.loads((folder / "tasks.json").read_text()):
        assert config.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert config.validate_prediction(prediction)
            for region in prediction["result"]:
                if region["type"] == "brushlabels":
                    size = region["original_height"], region["original_width"], 4
                    pixels = brush.decode_rle(region["value"]["rle"]).reshape(size)[:, :, 3] > 0
                    found.append((region["value"]["brushlabels"][0], pixels))
    assert best_ious(found, ("ring", "two parts")) == {"ring": 1.0, "two parts": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 200)])
def test_label_studios_brush(shape: tuple[int, int]) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    mask = np.random.default_rng(0).random(shape) > 0.5
    mask[shape[0] // 2 :] = True  # a run of more than 65536 values
    np.testing.assert_array_equal(brush.decode_rle(brush_runs(mask)).reshape(-1, 4)[:, 3] > 0, mask.ravel())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own
@pytest.mark.parametrize("format", ["cvat", "voc"])
def test_datumaro(write: Write, format: str) -> None:
    """The library that CVAT reads most formats with."""
    datumaro = pytest.importorskip("datumaro")
    folder = write(format, tolerance=0.0)
    (folder / "images").symlink_to(folder.parent / "photos")
    dataset = datumaro.Dataset.import_from(str(folder), format)
    labels = dataset.categories()[datumaro.AnnotationType.label]
    kinds: dict[str, int] = {}
    found = []
    for item in dataset:
        for part in item.annotations:
            kinds[part.type.name] = kinds.get(part.type.name, 0) + 1
            if part.type == datumaro.AnnotationType.mask:
                found.append((labels[part.label].name, np.asarray(part.image, bool)))
    assert len(dataset) == 2
    if format == "cvat":
        assert kinds == {"polygon": 2, "mask": 2, "bbox": 1}
        assert next(part.attributes["score"] for item in dataset for part in item.annotations) == "0.9"
    masks = ("ring", "two parts") if format == "cvat" else MASKS
    assert best_ious(found, masks) == dict.fromkeys(masks, 1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools'
def test_fiftyone(write: Write) -> None:
    """Its importer of COCO data sets, without the database that its data sets are kept in."""
    coco = pytest.importorskip("fiftyone.utils.coco")
    folder = write("coco", tolerance=0.0)
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(folder.parent / "photos"),
        labels_path=str(folder / "labels.json"),
        label_types=["detections", "segmentations"],
    )
    with importer:
        samples = {Path(path).name: labels for path, _, labels in importer}
    found = samples["a.png"]["segmentations"].detections
    assert [item.label for item in found][:2] == ["dog", NAMES[1]]
    assert found[0].confidence == 0.9
    x, y, width, height = (round(v * n) for v, n in zip(found[0].bounding_box, (80, 60, 80, 60), strict=True))
    crop = OBJECTS["whole"][3][y : y + height, x : x + width]
    assert iou(found[0].mask, crop) == 1.0


@pytest.mark.slow
def test_labelme_reads_keypoints(write_keypoints: WriteKeypoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    label_file = pytest.importorskip("labelme._label_file")
    folder, _ = write_keypoints("labelme")
    shapes = label_file.LabelFile(str(folder / "a.json")).shapes
    points = {shape["label"]: shape["points"] for shape in shapes if shape["shape_type"] == "point"}
    assert {name: np.array(place).tolist() for name, place in points.items()} == {
        "nose": [[20.5, 30]],
        "left_eye": [[0, 40]],
    }


@pytest.mark.slow
def test_label_studio_reads_keypoints(write_keypoints: WriteKeypoints) -> None:
    """Its checks, and its conversion of keypoints to COCO's."""
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    converter = pytest.importorskip("label_studio_sdk.converter.keypoints")
    label_config = pytest.importorskip("label_studio_sdk._extensions.label_studio_tools.core.label_config")
    folder, _ = write_keypoints("label_studio")
    config = interface((folder / "config.xml").read_text())
    (task,) = json.loads((folder / "tasks.json").read_text())
    (prediction,) = task["predictions"]
    assert config.validate_prediction(prediction)
    order = converter.build_kp_order(label_config.parse_config((folder / "config.xml").read_text()))
    assert order == list(KEYPOINTS)
    regions = [item for item in prediction["result"] if item["type"] == "keypointlabels"]
    size = {"original_width": 80, "original_height": 60}
    points = converter.process_keypoints_for_coco([item["value"] | size for item in regions], order, 1, 1, {})
    assert points["keypoints"] == [20, 30, 2, 0, 40, 2, 0, 0, 0]  # whole pixels, 20.5 to the even one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own
def test_datumaro_reads_points_of_skeletons(write_keypoints: WriteKeypoints) -> None:
    """It knows no skeletons and takes them for single points, also those that are outside."""
    datumaro = pytest.importorskip("datumaro")
    folder, _ = write_keypoints("cvat")
    (folder / "images").symlink_to(folder.parent / "photos")
    (item,) = datumaro.Dataset.import_from(str(folder), "cvat")
    points = [part.points for part in item.annotations if part.type == datumaro.AnnotationType.points]
    assert [list(place) for place in points[:2]] == [[20.5, 30], [0, 40]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools'
def test_fiftyone_reads_keypoints(write_keypoints: WriteKeypoints) -> None:
    coco = pytest.importorskip("fiftyone.utils.coco")
    folder, _ = write_keypoints("coco")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(folder.parent / "photos"),
        labels_path=str(folder / "labels.json"),
        label_types=["keypoints"],
    )
    with importer:
        ((_, _, found),) = importer
    ring, box = found.keypoints
    np.testing.assert_allclose(ring.points, [[20.5 / 80, 30 / 60], [0, 40 / 60], [np.nan, np.nan]])
    assert np.isnan(box.points).all()
