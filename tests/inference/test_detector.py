import dataclasses
import itertools
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.detector import Detector, make_predict_fn, mesh_of_batch
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections


def picture(value: int, *, height: int = 16, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def scores(results: list[Any]) -> list[int]:
    """The red values of the images, recovered from the fake model's scores."""
    return [round(255 * float(result.scores[0])) for result in results]


def test_one_image(model: Any, config: Config, categories: Categories) -> None:
    result = Detector(model, config, categories)(picture(51))
    assert result.scores.tolist() == pytest.approx([0.2])
    assert result.image_size == (16, 20) and result.names == ["ball"] and result.file_name == ""
    np.testing.assert_allclose(result.boxes, [[0, 0, 20, 16]])
    assert model.batches == [(1, 32, 64, 3)]


def test_the_model_is_told_sizes_without_padding(model: Any, config: Config, categories: Categories) -> None:
    sizes = []

    def predict_fn(images: np.ndarray, image_sizes: np.ndarray) -> Detections:
        sizes.extend(image_sizes.tolist())
        return model(images, image_sizes)

    Detector(predict_fn, config, categories, batch_size=3)([picture(0), picture(0, height=12)])
    assert sizes == [[32, 40], [32, 53], [32, 64]]  # the last one is of the blank image that fills the batch


def test_list_of_arrays_and_files(tmp_path: Path, model: Any, config: Config, categories: Categories) -> None:
    Image.fromarray(picture(20)).save(tmp_path / "a.png")
    results = Detector(model, config, categories)(
        [picture(10), tmp_path / "a.png", str(tmp_path / "a.png"), np.full((16, 20), 30, np.uint8)]
    )
    assert scores(results) == [10, 20, 20, 30]
    assert [result.file_name for result in results] == ["", "a.png", "a.png", ""]
    assert Detector(model, config, categories)(()) == []


def test_functions_are_called_in_other_threads(model: Any, config: Config, categories: Categories) -> None:
    threads = set()

    def read(value: int) -> np.ndarray:
        threads.add(threading.current_thread())
        return picture(value)

    results = Detector(model, config, categories)([partial(read, value) for value in (10, 20)])
    assert scores(results) == [10, 20] and results[0].file_name == ""
    assert threading.current_thread() not in threads
    with pytest.raises(ValueError, match=r"image 0 is of type str; an image is"):
        Detector(model, config, categories)(lambda: "a.png")


def test_batches_are_full_and_of_one_canvas(model: Any, config: Config, categories: Categories) -> None:
    """Wide and tall images mixed: results come in order, with one batch shape per canvas."""
    images = [picture(i, height=16 + 14 * (i % 3 == 0), width=30 - 14 * (i % 3 == 0)) for i in range(23)]
    results = Detector(model, config, categories, batch_size=4)(images)
    assert scores(results) == list(range(23))
    assert [result.image_size for result in results] == [image.shape[:2] for image in images]
    assert set(model.batches) == {(4, 32, 64, 3), (4, 64, 32, 3)}
    assert len(model.batches) == 6  # 15 wide images and 8 tall ones


def test_rare_canvas_does_not_hold_up_the_others(model: Any, config: Config, categories: Categories) -> None:
    """An endless stream whose first image is the only tall one still gives results."""
    images = itertools.chain([picture(1, height=30)], itertools.repeat(picture(2)))
    stream = Detector(model, config, categories, batch_size=4).stream(images)
    assert scores(list(itertools.islice(stream, 12))) == [1] + [2] * 11
    stream.close()


def test_reads_a_bounded_number_ahead(model: Any, config: Config, categories: Categories) -> None:
    taken = []

    def images() -> Any:
        for i in range(200):
            taken.append(i)
            yield picture(i)

    stream = Detector(model, config, categories, batch_size=2).stream(images())
    next(stream)
    assert len(taken) < 30
    assert scores(list(stream)) == list(range(1, 200))


def test_next_batch_is_dispatched_before_the_last_is_awaited(
    config: Config, categories: Categories, model: Any
) -> None:
    """The first batch's scores become available only after the second is dispatched."""
    second_dispatched = threading.Event()

    class Late:
        """Scores that can be read only after the second batch has been dispatched."""

        def __init__(self, value: np.ndarray) -> None:
            self.value = value

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            assert second_dispatched.wait(timeout=20)
            return self.value

    def predict_fn(images: np.ndarray, sizes: np.ndarray) -> Detections:
        found = model(images, sizes)
        if len(model.batches) == 2:
            second_dispatched.set()
        return found.replace(scores=Late(found.scores))

    results = Detector(predict_fn, config, categories, batch_size=2)([picture(i) for i in range(4)])
    assert scores(results) == [0, 1, 2, 3]


def test_views_of_a_batch_for_test_time_augmentation(config: Config, categories: Categories) -> None:
    """Each scale's images, plain and mirrored; results are in the frame without augmentation."""
    config.test = dataclasses.replace(config.test, scales=(16, 32), flip=True)
    calls = []

    def predict_fn(views: Any, frames: np.ndarray, keypoint_order: np.ndarray) -> Detections:
        calls.append((list(views), frames, keypoint_order))
        boxes = np.concatenate([np.zeros((2, 2)), frames[:, ::-1]], axis=1, dtype=np.float32)
        ones = np.ones((2, 1), np.float32)
        return Detections(boxes=boxes[:, None], scores=ones, labels=np.ones((2, 1), int), valid=ones > 0)

    images = [np.arange(64 * w, dtype=np.uint8).reshape(64, w, 1).repeat(3, axis=2) for w in (80, 100, 90)]
    results = Detector(predict_fn, config, categories, batch_size=2)(images)
    assert [result.boxes.tolist() for result in results] == [[[0, 0, w, 64]] for w in (80, 100, 90)]
    (views, frames, order), (last, last_frames, _) = calls
    assert frames.tolist() == [[32, 40], [32, 50]] and order.tolist() == [0, 2, 1]
    assert last_frames[0].tolist() == [32, 45]
    for number, (short_side, canvas) in enumerate([(16, (32, 32)), (32, (32, 64))]):
        (plain, sizes), (mirrored, mirrored_sizes) = views[2 * number : 2 * number + 2]
        assert plain.shape == mirrored.shape == (2, *canvas, 3)
        wanted = [[short_side, w * short_side // 64] for w in (80, 100)]
        assert sizes.tolist() == mirrored_sizes.tolist() == wanted
        for row, (_, width) in enumerate(wanted):
            np.testing.assert_array_equal(mirrored[row, :, :width], plain[row, :, :width][:, ::-1])
            assert plain[row, :short_side, :width].any() and not mirrored[row, :, width:].any()
        assert last[2 * number][1].tolist()[1] == list(canvas), "the blank image that fills the batch"


def test_keypoints_without_pairs_cannot_be_mirrored(
    model: Any, config: Config, categories: Categories
) -> None:
    config.test.flip = True
    with pytest.raises(ValueError, match=r"test\.flip is True, but the categories' flip_pairs are empty"):
        Detector(model, config, dataclasses.replace(categories, flip_pairs=()))


def test_extreme_sizes(model: Any, config: Config, categories: Categories) -> None:
    results = Detector(model, config, categories)(
        [picture(7, height=h, width=w) for h, w in ((1, 1), (3000, 15), (15, 3000))]
    )
    assert [result.image_size for result in results] == [(1, 1), (3000, 15), (15, 3000)]
    for result in results:
        assert result.boxes.tolist() == [[0, 0, result.image_size[1], result.image_size[0]]]


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"uint8 \[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
        ([[1, 2], [3, 4]], "of type list"),
        (b"data", "of type bytes"),
        (None, "of type NoneType"),
        (Image.new("RGB", (5, 0)), r"uint8 \[0, 5, 3\]"),
    ],
)
def test_a_source_that_is_no_image_is_an_error(
    image: Any, shown: str, model: Any, config: Config, categories: Categories
) -> None:
    with pytest.raises(ValueError, match=rf"image 1 is {shown}; an image is a path, a PIL\.Image\.Image, or"):
        list(Detector(model, config, categories).stream(iter([picture(0), image])))


def test_pillow_images_are_converted_like_files(
    tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    colors = Image.fromarray(picture(40))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate the stored picture clockwise
    colors.save(tmp_path / "turned.png", exif=exif)
    colors.quantize(4).save(tmp_path / "palette.png")
    Image.new("CMYK", (20, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.fromarray(np.full((16, 20), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    paths = sorted(tmp_path.iterdir())
    detector = Detector(model, config, categories, batch_size=2)
    from_files = detector(paths)
    from_pillow = detector([Image.open(path) for path in paths])
    assert scores(from_pillow) == scores(from_files) == [255, 0x80, 40, 40]
    sizes = [result.image_size for result in from_pillow]
    assert sizes == [result.image_size for result in from_files] == [(16, 20)] * 3 + [(20, 16)]
    assert [result.file_name for result in from_pillow] == [""] * 4


def test_one_pillow_image_many_times(
    tmp_path: Path, config: Config, categories: Categories, model: Any
) -> None:
    """Pillow reads the file lazily, in whichever thread uses the image first."""
    Image.fromarray(picture(90, height=200, width=300)).save(tmp_path / "a.png")
    results = Detector(model, config, categories, batch_size=8)([Image.open(tmp_path / "a.png")] * 8)
    assert scores(results) == [90] * 8


def test_damaged_pillow_image_is_an_error(
    tmp_path: Path, config: Config, categories: Categories, model: Any
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:6000])
    with (
        Image.open(tmp_path / "cut.png") as image,
        pytest.raises(ValueError, match=r"image 0, <PIL.* cannot be read: .*truncated"),
    ):
        Detector(model, config, categories)(image)


def test_missing_file_is_an_error(model: Any, config: Config, categories: Categories) -> None:
    with pytest.raises(ValueError, match=r"nowhere/cat\.jpg"):
        Detector(model, config, categories)("nowhere/cat.jpg")


def test_unreadable_images_do_not_affect_the_others(
    tmp_path: Path, model: Any, config: Config, categories: Categories
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    outcomes = list(
        Detector(model, config, categories, batch_size=2).attempt(
            [broken, picture(1), picture(2), "gone.png", picture(3)]
        )
    )
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [True, False, False, True, False]
    assert "broken.jpg" in str(outcomes[0]) and "gone.png" in str(outcomes[3])
    assert scores([outcomes[1], outcomes[2], outcomes[4]]) == [1, 2, 3]


def test_failure_of_the_model_is_raised(config: Config, categories: Categories) -> None:
    def predict_fn(images: np.ndarray, sizes: np.ndarray) -> Detections:
        raise ValueError("labels gone wrong")

    with pytest.raises(ValueError, match="labels gone wrong"):
        list(Detector(predict_fn, config, categories).attempt([picture(0)]))


def test_batch_size_below_one_is_an_error(model: Any, config: Config, categories: Categories) -> None:
    with pytest.raises(ValueError, match=r"batch size \(0\) must be at least 1"):
        Detector(model, config, categories, batch_size=0)


@pytest.mark.parametrize(
    ("batch_size", "spatial_devices", "shape"),
    [(1, 1, (1, 1)), (6, 1, (2, 1)), (1, 8, (1, 8)), (6, 4, (2, 4)), (3, 2, (1, 2)), (6, 3, (2, 3))],
)
def test_mesh_of_as_many_devices_as_divide_a_batch(
    batch_size: int, spatial_devices: int, shape: tuple[int, int]
) -> None:
    mesh = mesh_of_batch(batch_size, spatial_devices)
    assert mesh.shape == dict(zip(("data", "spatial"), shape, strict=True))


def test_too_few_devices_for_an_image_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"test.spatial_devices \(9\) must not exceed .* process \(8\)"):
        mesh_of_batch(1, 9)


def test_predicting_imports_neither_tensorflow_nor_evaluators() -> None:
    code = (
        "import sys, mrcnn_jax; assert 'jax' not in sys.modules;"
        "mrcnn_jax.load; import mrcnn_jax.inference.pictures;"
        "print([name for name in ('tensorflow', 'pycocotools', 'hotcoco') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_one_compilation_per_canvas_and_a_warning_for_others(
    tiny_blueprint, tiny_weights, config, monkeypatch
):
    compiled = []

    def predict(_model, images, image_sizes, _config):
        compiled.append(images.shape)
        return Detections(boxes=images, scores=images, labels=image_sizes, valid=image_sizes)

    monkeypatch.setattr("mrcnn_jax.inference.detector.predict", predict)
    with_weights = make_predict_fn(tiny_blueprint, config, make_mesh(jax.devices()[:1]))
    canvases = [(1, 32, 64, 3), (1, 64, 32, 3)]
    for _evaluation in range(2):
        predict_fn = with_weights(tiny_weights)
        for shape in canvases:
            predict_fn(np.zeros(shape, np.uint8), np.zeros((1, 2), np.int32))
    assert compiled == canvases
    with pytest.warns(
        UserWarning, match=r"inference is compiled again.*images: uint8 \[2, 32, 64, 3\], before"
    ):
        predict_fn(np.zeros((2, 32, 64, 3), np.uint8), np.zeros((2, 2), np.int32))
    assert len(compiled) == 3
