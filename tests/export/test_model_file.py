"""Exported files: what they have, what the runner and ``mrcnn_jax.load`` find with them, what is refused."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mrcnn_jax
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.export import runner
from mrcnn_jax.export.model_file import check_exportable, export_model, load_exportable
from mrcnn_jax.inference.views import scales_of
from mrcnn_jax.runs.description import read_model, read_run, write_run
from tests.export.stand_in import CATEGORIES, with_data, with_test, write_stand_in
from tests.run_command import run_here

CANVASES = (64, 96), (96, 64), (96, 96)


@pytest.fixture(scope="module")
def config(tiny_config):
    return with_data(tiny_config, canvases=CANVASES, long_side=96)


@pytest.fixture(scope="module")
def model(config, tmp_path_factory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("exported") / "model.mrcnn", config, batch_sizes=[3, 1])


def draw_images(*sizes: tuple[int, int], channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, channels), np.uint8) for size in sizes]


def assert_same(found, result):
    assert set(found) == {
        "boxes", "scores", "labels", "names", "category_ids", "crops", "segmentations", "keypoints"
    }  # fmt: skip
    for name in ("boxes", "scores", "labels", "keypoints"):
        np.testing.assert_array_equal(found[name], getattr(result, name), strict=True)
    assert found["names"] == result.names and found["segmentations"] == result.segmentations
    assert found["category_ids"] == [entry["category_id"] for entry in result.to_coco(1)]
    for (top, left, mask), crop in zip(found["crops"], result.crops, strict=True):
        assert (top, left) == (crop.top, crop.left)
        np.testing.assert_array_equal(mask, crop.mask)


def test_the_entries(model, config):
    with zipfile.ZipFile(model) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert names[:11] == [
        "manifest.json", "config.json", "categories.json", "__main__.py",
        *(f"runner/{path.name}" for path in sorted(Path(runner.__file__).parent.glob("*.py"))),
        "weights.safetensors",
    ]  # fmt: skip
    assert names[11:] == [f"programs/cpu-{b}x{h}x{w}.stablehlo" for h, w in CANVASES for b in (1, 3)]
    assert manifest["version"] == 1 and manifest["step"] == 7
    run = read_model(model)
    assert run.config == with_test(config, batch_size=3) and run.categories == CATEGORIES


@pytest.mark.parametrize(
    ("resize", "paste"),
    [("detectron2", "detectron2"), ("torchvision", "torchvision"), ("mmdetection", "detectron2")],
)
def test_the_runner_and_load_find_the_same_bits(config, tmp_path, resize, paste):
    config = with_test(with_data(config, resize=resize, keypoint_offset=0.5), mask_paste=paste)
    path = write_stand_in(tmp_path / "model.mrcnn", config, batch_sizes=[1, 3])
    images = draw_images((40, 60), (60, 40), (64, 64), (150, 200), (50, 70), (30, 45), (33, 45), (1, 300))
    (alone,), *together = (runner.load(str(path))(batch) for batch in (images[:1], images))
    detector = mrcnn_jax.load(path, batch_size=3)
    assert (detector.step, detector.categories) == (7, CATEGORIES)
    for found, result in zip(together[0], detector(images), strict=True):
        assert_same(found, result)
        assert len(result) == 4  # of six: one is not valid, one lies outside the image
    assert any(result.keypoints.any() and result.masks.any() for result in detector(images))
    assert_same(alone, mrcnn_jax.load(path)(images[0]))


def test_a_scale_and_some_canvases(tiny_config, tmp_path):
    """The canvases of test.scales follow from those of data, and a file may have a selection."""
    config = with_test(tiny_config, scales=(48,), scales_long_side=80)
    path = write_stand_in(tmp_path / "model.mrcnn", config)
    images = draw_images((40, 60), (60, 40), (30, 90))
    detector, model = mrcnn_jax.load(path), runner.load(str(path))
    assert tuple(model.programs) == detector.config.data.canvases == ((64, 64), (64, 96), (96, 64))
    for found, result in zip(model(images), detector(images), strict=True):
        assert_same(found, result)
    one = scales_of(config)[0]._replace(canvases=((64, 96),))
    path = write_stand_in(tmp_path / "one.mrcnn", config, scale=one)
    for found, result in zip(runner.load(str(path))(images), mrcnn_jax.load(path)(images), strict=True):
        assert_same(found, result)


def test_other_channels(tiny_config, tmp_path):
    channels = {"pixel_mean": (100.0,) * 5, "pixel_std": (50.0,) * 5}
    config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, **channels))
    path = write_stand_in(tmp_path / "model.mrcnn", config)
    (image,) = draw_images((40, 60), channels=5)
    assert_same(runner.load(str(path))([image])[0], mrcnn_jax.load(path)(image))
    with pytest.raises(ValueError, match=r"image 0 must be a uint8 array \[H W 5\]"):
        runner.load(str(path))([image[:, :, :3]])


def test_images_must_be_pixels(model):
    image, wrong = np.zeros((8, 8, 3), np.uint8), r"image 1 must be a uint8 array \[H W 3\]"
    for other in (image[:, :, 0], image.astype(np.float32), image.tolist()):
        with pytest.raises(ValueError, match=wrong):
            runner.load(str(model))([image, other])


def test_settings_outside_the_programs_may_change(model, config):
    (image,) = draw_images((40, 60))
    result = mrcnn_jax.load(model, config=with_test(config, mask_threshold=0.99, batch_size=1))(image)
    assert sum(crop.mask.sum() for crop in result.crops) < 100
    detector = mrcnn_jax.load(model, config=with_data(config, root="elsewhere", keypoint_offset=0.5))
    assert detector.config.data.root == "elsewhere" and detector(image).keypoint_offset == 0.5


def test_settings_within_the_programs_are_refused(model, config):
    changed = with_data(with_test(config, score_threshold=0.3, detections=2), canvases=((64, 64),))
    with pytest.raises(ValueError) as caught:
        mrcnn_jax.load(model, config=changed)
    assert str(caught.value).splitlines() == [
        f"{model} has programs in which these settings are fixed:",
        "  data.canvases: ((64, 64),) here, ((64, 96), (96, 64), (96, 96)) there",
        "  test.score_threshold: 0.3 here, 0.0 there",
        "  test.detections: 2 here, 8 there",
        "to change them, export the run again with the same flags",
    ]
    with pytest.raises(ValueError, match=r"model\.mrcnn has the weights of step 7, not of step 8"):
        mrcnn_jax.load(model, step=8)
    with pytest.raises(ValueError, match=r"batches of 1, 3 images on canvas 64x96, not of 2: choose another"):
        mrcnn_jax.load(model, batch_size=2)


def test_predict_writes_results_and_pictures(model, tmp_path):
    images = draw_images((40, 60), (60, 40))
    for name, image in zip("ab", images, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    arguments = f"--workdir={model}", "--output=out", "a.png", "b.png"
    done = run_here("predict", *arguments, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [
        entry
        for number, name in enumerate("ab", start=1)
        for entry in mrcnn_jax.load(model)(tmp_path / f"{name}.png").to_coco(number)
    ]
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == expected
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]
    done = run_here("predict", "--config.test.nms_iou=0.3", *arguments, directory=tmp_path)
    assert done.returncode == 1 and "test.nms_iou: 0.3 here, 0.5 there" in done.stderr
    done = run_here("evaluate", f"--workdir={model}", directory=tmp_path)
    assert f"--output is missing: {model} is a model file, not a directory to write into" in done.stderr


def test_evaluate_measures_it(tiny_config, tmp_path):
    make_shapes(tmp_path / "shapes", train=1, val=3, image_size=64, seed=0)
    categories = open_validation_source(with_data(tiny_config, root=str(tmp_path / "shapes"))).categories
    path = write_stand_in(
        tmp_path / "model.mrcnn", with_data(tiny_config, root="there"), categories=categories
    )
    flags = f"--workdir={path}", "--config.data.root=shapes", "--output=found.json"
    done = run_here("evaluate", *flags, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["step"] == 7 and written["bbox"]["AP"] >= 0 and written["keypoints"]["AP"] >= 0
    config = with_data(read_model(path).config, root=str(tmp_path / "shapes"))
    assert written["segm"] == mrcnn_jax.evaluate(mrcnn_jax.load(path, config=config))["segm"]


def test_a_damaged_file(model, tmp_path):
    content = model.read_bytes()
    place = content.index(b'"names"')
    path = tmp_path / "model.mrcnn"
    path.write_bytes(content[:place] + b'"nomes"' + content[place + 7 :])
    for load in (runner.load, mrcnn_jax.load):
        with pytest.raises(ValueError, match=r"model\.mrcnn: is damaged.*Bad CRC-32.*categories\.json"):
            load(str(path))
    path.write_bytes(content[:29] + b"\xff" + content[30:])  # the length of what follows a name: to the end
    for load in (runner.load, mrcnn_jax.load):
        with pytest.raises(ValueError, match=r"model\.mrcnn: is damaged"):
            load(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.json", "config.json", "categories.json"):
            archive.writestr(name, "{}" + " " * 1000)
    with pytest.raises(ValueError, match=r"model\.mrcnn: its entries must be uncompressed"):
        mrcnn_jax.load(path)


def test_it_is_not_a_run(model, tmp_path, config):
    with pytest.raises(NotADirectoryError, match=r"model\.mrcnn: is a file that mrcnn-jax export wrote"):
        read_run(model)
    for command in (
        ["export", f"--workdir={model}", "--output=new"],
        ["convert", "--source=run", f"--input={model}", "--workdir=new", "--config=shapes"],
    ):
        done = run_here(*command, directory=tmp_path)
        assert done.returncode == 1 and "is a file that mrcnn-jax export wrote" in done.stderr
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(NotADirectoryError, match="mrcnn-jax convert makes a run of a detector's weights"):
        read_model(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("test", {"flip": True}, r"test-time augmentation \(test\.scales, test\.flip\) merges"),
        ("model", {"pixel_type": "float32"}, r"takes float32 images \(model\.pixel_type\) and cannot be"),
        ("model", {"box": False}, "a region proposal network alone .* finds no objects; mrcnn-jax propose"),
        ("model", {"rpn": False}, r"has no RPN \(model\.rpn is False\) and needs proposals"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported(tiny_config, tmp_path, section, changes, message):
    changed = dataclasses.replace(getattr(tiny_config, section), **changes)
    config = dataclasses.replace(tiny_config, **{section: changed})
    with pytest.raises(ValueError, match=message):
        check_exportable(config)


def test_what_flags_cannot_be(model, config, tmp_path):
    write_run(tmp_path / "run", config, CATEGORIES)
    with pytest.raises(ValueError, match="canvas 32x32 is not one of the config's, which are 64x96, 96x64"):
        load_exportable(tmp_path / "run", canvases=[(32, 32)])
    with pytest.raises(FileExistsError, match=r"model\.mrcnn: already exists and is not overwritten"):
        export_model(None, model)
    for changes, message in (
        ({"output": tmp_path / "none" / "model.mrcnn"}, "there is no folder"),
        ({"platforms": ["rocm"]}, "platform rocm is unknown; there are cpu, cuda, tpu"),
        ({"platforms": []}, "no platform is named; there are cpu, cuda, tpu"),
        ({"batch_sizes": [2, 0]}, r"batch sizes \(\[0, 2\]\) must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(None, **{"output": tmp_path / "new.mrcnn", **changes})
    for flag, message in (
        ("--canvas=64", "--canvas=64: must be HEIGHTxWIDTH, such as 800x1344"),
        ("--batch_sizes=1,b", "--batch_sizes=b: must be numbers from 1"),
        ("--canvas=32x32", "canvas 32x32 is not one of the config's"),
        ("--platforms=", "no platform is named"),
        ("--format=saved_model --platforms=cuda", "--platforms is not for --format=saved_model"),
    ):
        done = run_here("export", "--workdir=run", "--output=new.mrcnn", *flag.split(), directory=tmp_path)
        assert done.returncode == 1 and message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
