import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.data.coco import CocoAnnotation, CocoDataset, CocoImage
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.objects import Objects, read_objects
from mrcnn_jax.data.source import AnnotatedImage, DataSource, FolderSource
from mrcnn_jax.distributed import hosts
from mrcnn_jax.evaluation.coco_eval import check_same_source, check_source, evaluate
from mrcnn_jax.inference.detector import Detector
from mrcnn_jax.inference.results import Result
from mrcnn_jax.proposals import ImageProposals, write_proposals
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections

CATEGORIES = Categories(
    ids=(3, 7),
    names=("ball", "figure"),
    keypoint_labels=(2,),
    keypoint_names=("head", "foot"),
    sigmas=(0.05, 0.1),
)
CONFIG = Config(
    model=ModelConfig(keypoint=True), data=DataConfig(test_short_side=64, long_side=64, canvases=((64, 64),))
)


def annotation(number: int, label: int, box: tuple[float, float, float, float]) -> CocoAnnotation:
    """An object that fills its box; the keypoints of a figure are two corners of the box."""
    x1, y1, x2, y2 = box
    return CocoAnnotation(
        id=number,
        label=label,
        box=box,
        crowd=False,
        segmentation=(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),),
        keypoints=np.array([[x1, y1, 2], [x2, y2, 1]], np.float32) if label == 2 else None,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    """Three images of 32 x 32: a ball and a figure, nothing, a figure."""
    objects = (
        (annotation(1, 1, (2, 2, 14, 14)), annotation(2, 2, (16, 4, 30, 28))),
        (),
        (annotation(3, 2, (4, 4, 20, 24)),),
    )
    images = []
    for i, annotations in enumerate(objects):
        path = tmp_path / f"{i}.png"
        # The fake model recognises an image by its pixel value.
        Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(path)
        images.append(CocoImage(10 + i, path, path.name, height=32, width=32, annotations=annotations))
    return CocoDataset(name="made_up.json", categories=CATEGORIES, images=tuple(images))


@pytest.fixture
def source(dataset: CocoDataset) -> DataSource:
    return source_of(dataset)


def source_of(dataset: CocoDataset, **changes: Any) -> DataSource:
    return FolderSource(dataclasses.replace(dataset, **changes), mask_grid=0)


class Oracle:
    """The ground truth of ``source`` as detections in images resized from 32 to 64 pixels."""

    def __init__(self, source: DataSource, *, found: bool = True) -> None:
        self.source = source
        self.found = found

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Detections:
        count = len(images)
        boxes = np.full((count, 3, 4), np.nan, np.float32)
        labels = np.zeros((count, 3), np.int32)
        valid = np.zeros((count, 3), bool)
        masks = np.full((count, 3, 28, 28), np.nan, np.float32)
        keypoints = np.full((count, 3, 2, 3), np.nan, np.float32)
        for row, value in enumerate(images[:, 0, 0, 0]):
            for i, item in enumerate(self.source.annotations(value)):
                boxes[row, i] = 2 * np.array(item.box)
                labels[row, i], valid[row, i], masks[row, i] = item.label, self.found, 1
                if item.keypoints is not None:
                    keypoints[row, i] = 2 * item.keypoints
        scores = np.full((count, 3), 0.9, np.float32)
        return Detections(
            boxes=boxes, scores=scores, labels=labels, valid=valid, masks=masks, keypoints=keypoints
        )


def test_detections_are_written_for_loadres(source: DataSource, tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source, detections_file=file)
    truth = COCO()
    truth.dataset = {"info": {}, "images": [{"id": number} for number in (10, 11, 12)], "categories": []}
    truth.createIndex()
    found = truth.loadRes(str(file))
    assert [(entry["image_id"], entry["category_id"]) for entry in found.dataset["annotations"]] == [
        (10, 3),
        (10, 7),
        (12, 7),
    ]
    assert "file_name" not in found.dataset["annotations"][0]


def test_only_process_0_writes_detections(
    source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "is_main_process", lambda: False)
    file = tmp_path / "detections.json"
    evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source, detections_file=file)
    assert not file.exists()


def test_truth_as_detections(source: DataSource, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = evaluate(Detector(Oracle(source), CONFIG, CATEGORIES, batch_size=2), source)
    small_only = {
        "AP": 100.0,
        "AP50": 100.0,
        "AP75": 100.0,
        "APs": 100.0,
        "APm": None,
        "APl": None,
        "AR100": 100.0,
    }
    assert metrics["bbox"] == small_only
    # Pasted masks have rounded corners, so the highest thresholds may not be perfect.
    assert metrics["segm"].keys() == small_only.keys() and metrics["segm"]["AP75"] == 100.0
    assert set(metrics["keypoints"]) == {"AP", "AP50", "AP75", "APm", "APl", "AR20"}
    assert metrics["per_category"]["ball"].keys() == {"bbox", "segm"}
    assert metrics["per_category"]["figure"]["bbox"] == 100.0
    assert capsys.readouterr().out == ""


def test_keypoints_of_small_objects(source: DataSource) -> None:
    """Small objects count in the keypoint AP, which has no APs."""
    metrics = evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source)
    assert metrics["keypoints"]["AP"] == 100.0
    assert metrics["keypoints"]["APm"] is None and metrics["keypoints"]["APl"] is None


def test_annotations_of_lvis_are_recognised(dataset: CocoDataset, tmp_path: Path) -> None:
    """What is found where an image is not annotated for a category is not held against the model."""
    lvis = source_of(dataset, frequencies=("f", "r"))
    metrics = evaluate(Detector(Oracle(lvis), CONFIG, CATEGORIES), lvis)
    assert set(metrics) == {"bbox", "segm", "per_category"}
    names = {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300"}
    assert metrics["bbox"].keys() == metrics["segm"].keys() == names
    assert metrics["bbox"]["APr"] == metrics["bbox"]["APf"] == 100.0 and metrics["bbox"]["APc"] is None
    file = tmp_path / "all.json"
    assert evaluate(Detector(Oracle(lvis), CONFIG, CATEGORIES), lvis, detections_file=file) == metrics
    with pytest.raises(ValueError, match=r"made_up\.json: its annotations are LVIS's"):
        evaluate(Detector(Oracle(lvis), CONFIG, CATEGORIES), lvis, evaluator="pycocotools")


def test_nothing_found(source: DataSource) -> None:
    metrics = evaluate(Detector(Oracle(source, found=False), CONFIG, CATEGORIES), source)
    assert [metrics[kind]["AP"] for kind in ("bbox", "segm", "keypoints")] == [0.0, 0.0, 0.0]


def test_kinds_follow_the_model_and_the_data(dataset: CocoDataset, source: DataSource) -> None:
    boxes_only = dataclasses.replace(CONFIG, model=ModelConfig(mask=False, keypoint=False))
    assert set(evaluate(Detector(Oracle(source), boxes_only, CATEGORIES), source)) == {
        "bbox",
        "per_category",
    }
    no_keypoints = Categories(ids=CATEGORIES.ids, names=CATEGORIES.names)
    without = source_of(dataset, categories=no_keypoints)
    assert set(evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), without)) == {
        "bbox",
        "segm",
        "per_category",
    }


def test_other_categories_are_an_error(dataset: CocoDataset, source: DataSource) -> None:
    other = Categories(ids=(3, 8), names=("bell", "figure"), keypoint_names=("head", "hand"))
    with pytest.raises(ValueError) as error:
        evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source_of(dataset, categories=other))
    assert str(error.value).splitlines() == [
        "made_up.json: its categories are not those that the run was trained on:",
        "  no category 7 ('figure'), which the run has",
        "  category 8 ('figure'), which the run does not have",
        "  category 3 is 'bell', in the run 'ball'",
        "  keypoints head, hand, in the run head, foot",
    ]


def test_unused_labels_of_the_run(source: DataSource) -> None:
    run = dataclasses.replace(
        CATEGORIES, ids=(1, 3, 5, 7), names=("N/A", "ball", "N/A", "figure"), keypoint_labels=(4,)
    )
    oracle = Oracle(AlignedSource(source, run))
    metrics = evaluate(Detector(oracle, CONFIG, run), source)
    assert [metrics[kind]["AP50"] for kind in ("bbox", "segm", "keypoints")] == [100.0] * 3
    assert metrics["per_category"].keys() == {"ball", "figure"}


def test_keypoints_without_sigmas_are_an_error(dataset: CocoDataset, source: DataSource) -> None:
    bare = source_of(dataset, categories=dataclasses.replace(CATEGORIES, sigmas=()))
    with pytest.raises(ValueError, match=r"made_up.json: keypoint AP needs .* list 'sigmas' of 2 numbers"):
        evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), bare)


def test_the_source_can_be_checked_without_a_detector(dataset: CocoDataset, source: DataSource) -> None:
    assert check_source(CONFIG, CATEGORIES, source) is None
    bare = source_of(dataset, categories=dataclasses.replace(CATEGORIES, sigmas=()))
    with pytest.raises(ValueError, match="keypoint AP needs"):
        check_source(CONFIG, CATEGORIES, bare)
    check_source(Config(model=ModelConfig(keypoint=False)), CATEGORIES, bare)  # has no use for sigmas
    with pytest.raises(ValueError, match="category 3 is 'ball', in the run 'cube'"):
        check_source(CONFIG, dataclasses.replace(CATEGORIES, names=("cube", "figure")), source)


def test_the_proposals_of_a_model_without_an_rpn_are_checked(tmp_path: Path, source: DataSource) -> None:
    data = dataclasses.replace(CONFIG.data, root=str(tmp_path))
    config = Config(model=ModelConfig(rpn=False), data=data)
    with pytest.raises(ValueError, match=r"data\.val_proposals is empty"):
        check_source(config, CATEGORIES, source)
    proposal = ImageProposals(np.array([[1, 2, 3, 4]], np.float32), np.ones(1, np.float32))
    write_proposals(tmp_path / "p.npz", [(int(image_id), proposal) for image_id in source.ids])
    data.val_proposals = "p.npz"
    proposals = check_source(config, CATEGORIES, source)
    assert proposals is not None
    np.testing.assert_array_equal(proposals[2].boxes, proposal.boxes)


def test_ids_that_cannot_be_evaluated_are_an_error(dataset: CocoDataset) -> None:
    images = tuple(
        dataclasses.replace(image, id=number)
        for image, number in zip(dataset.images, (-1, 2**53, 2**53 + 1), strict=True)
    )
    with pytest.raises(ValueError) as error:
        check_source(CONFIG, CATEGORIES, source_of(dataset, images=images))
    assert str(error.value) == (
        "made_up.json: for evaluation, ids must be from 0 to 2^53: image -1, image 9007199254740993"
    )


class Drawn:
    """A source of its own kind: pictures drawn on request, by two threads at once or not at all."""

    name = "drawn"
    categories = CATEGORIES
    ids = np.array([10, 11, 12])
    sizes = np.full((3, 2), 32, np.int32)
    learnable = np.array([True, False, True])
    num_objects = np.array([2, 0, 1], np.int32)
    has_masks = True
    counts = None
    visible_keypoints = None
    image_labels = None
    federated = None
    findings = ()

    def __init__(self, annotations: list[tuple[CocoAnnotation, ...]]) -> None:
        self.found = annotations
        self.readers = threading.Barrier(2, timeout=20)

    def read(self, index: int) -> AnnotatedImage:
        if index < 2:
            self.readers.wait()
        pixels = np.full((32, 32, 3), index, np.uint8)
        return AnnotatedImage(name=f"drawing {index}", pixels=pixels, objects=self.objects(index))

    def objects(self, index: int) -> Objects:
        image = CocoImage(int(self.ids[index]), Path(), "", 32, 32, self.found[index])
        return read_objects(image, mask_grid=0, num_keypoints=2)

    def annotations(self, index: int) -> tuple[CocoAnnotation, ...]:
        return self.found[index]


def test_a_source_that_is_neither_folder_nor_records(dataset: CocoDataset, source: DataSource) -> None:
    drawn = Drawn([image.annotations for image in dataset.images])
    detector = Detector(Oracle(source), CONFIG, CATEGORIES, batch_size=2)
    assert evaluate(detector, drawn) == evaluate(detector, source)


def test_pycocotools_gives_the_same_metrics(source: DataSource) -> None:
    detector = Detector(Oracle(source), CONFIG, CATEGORIES)
    assert evaluate(detector, source, evaluator="pycocotools") == evaluate(detector, source)


def test_results_are_written_while_the_next_batch_is_computed(
    source: DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of a batch become available only once the next one has been requested."""
    requested = [threading.Event() for _ in source.ids]  # one batch per image
    batches = 0
    written_after: list[int] = []  # batches requested when an image's results are written

    class Late:
        """A score that becomes available once the batch after its own, if any, has been requested."""

        def __init__(self, value: np.ndarray) -> None:
            self.value = value
            self.next = requested[min(batches, len(requested) - 1)]

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            assert self.next.wait(timeout=20)
            return self.value

    oracle = Oracle(source)

    def predict_fn(images: np.ndarray, sizes: np.ndarray) -> Detections:
        nonlocal batches
        requested[batches].set()
        batches += 1
        found = oracle(images, sizes)
        return found.replace(scores=Late(found.scores))

    to_coco = Result.to_coco

    def spy(result: Result, image_id: int) -> list[dict[str, Any]]:
        written_after.append(batches)
        return to_coco(result, image_id)

    monkeypatch.setattr(Result, "to_coco", spy)
    evaluate(Detector(predict_fn, CONFIG, CATEGORIES), source)
    assert written_after[0] >= 2 and written_after[1] == 3


def test_categories_with_the_same_name_stay_separate(dataset: CocoDataset) -> None:
    categories = dataclasses.replace(CATEGORIES, names=("thing", "thing"))
    renamed = source_of(dataset, categories=categories)
    per_category = evaluate(Detector(Oracle(renamed), CONFIG, categories), renamed)["per_category"]
    assert {name: set(kinds) for name, kinds in per_category.items()} == {
        "thing (3)": {"bbox", "segm"},
        "thing (7)": {"bbox", "segm", "keypoints"},
    }


def test_image_of_another_size_is_an_error(dataset: CocoDataset, source: DataSource) -> None:
    Image.fromarray(np.zeros((31, 32, 3), np.uint8)).save(dataset.images[0].path)
    with pytest.raises(
        ValueError, match=r"0.png: image 10 of made_up.json: the file has 31x32 .* annotations say 32x32"
    ):
        evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source)


def test_unreadable_image_is_an_error(dataset: CocoDataset, source: DataSource) -> None:
    dataset.images[1].path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png"):
        evaluate(Detector(Oracle(source), CONFIG, CATEGORIES), source)


def test_processes_must_have_the_same_images(
    dataset: CocoDataset, source: DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(data: DataSource) -> str:
        sent: list[str] = []
        monkeypatch.setattr(hosts, "all_gather", lambda value: [sent.append(value) or value])
        check_same_source(data)
        return sent[0]

    others = [digest(source_of(dataset, images=dataset.images[:2])), digest(source)]
    monkeypatch.setattr(hosts, "all_gather", lambda value: [value, *others])
    with pytest.raises(
        ValueError, match="the images to evaluate on of process 1 differ from those of process 0"
    ):
        check_same_source(source)
