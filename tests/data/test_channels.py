"""A COCO folder of images with four channels, from files to batches."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config, ModelConfig
from mrcnn_jax.data.augmented import mean_colour
from mrcnn_jax.data.check_images import check_images
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.importers.files import find_images
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.own import as_source
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.data.records import RecordSource, prepare_records
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.image_size import upright_size
from mrcnn_jax.pixels import PixelFormat
from tests.data.conftest import CocoFolder
from tests.data.examples import GRID, config_of

DEEP = PixelFormat(4, "float32")
MODEL = ModelConfig(
    keypoint=True,
    pixel_mean=(120.0, 110.0, 100.0, 3000.0),
    pixel_std=(60.0, 60.0, 60.0, 1500.0),
    pixel_type="float32",
)


@pytest.fixture
def folder(tmp_path) -> CocoFolder:
    """Four images of 10 x 20 pixels with an object each: RGB and depth, 16 bits."""
    made = CocoFolder(tmp_path)
    for number in range(4):
        identifier = made.add_image(name=f"{number}.npy", size=(10, 20), write=False)
        np.save(tmp_path / "images" / f"{number}.npy", pixels(number))
        made.add_object(identifier)
    return made


def pixels(number):
    rng = np.random.default_rng(number)
    rgb, depth = rng.integers(0, 256, (10, 20, 3)), rng.integers(0, 6000, (10, 20, 1))
    return np.concatenate([rgb, depth], axis=2).astype(np.uint16)


def config_for(folder, model=MODEL, **changes) -> Config:
    return dataclasses.replace(config_of(folder, **changes), model=model)


def batches_of(config, source=None, count=4):
    found = training_batches(
        open_data_source(config) if source is None else source,
        config.data,
        batch_size=2,
        seed=0,
        masks=True,
        keypoints=True,
        fill=mean_colour(config.model),
        pixels=PixelFormat.of(config),
    )
    return [next(found) for _ in range(count)]


def test_images_keep_their_values_on_the_canvas(folder):
    config = config_for(folder, train_short_sides=(10,), flip=False)
    for batch in batches_of(config):
        assert batch.images.dtype == np.float32 and batch.images.shape == (2, 32, 32, 4)
        for image, identifier in zip(batch.images, batch.ids.tolist(), strict=True):
            np.testing.assert_array_equal(image[:10, :20], pixels(identifier - 1))
            assert not image[10:].any() and not image[:, 20:].any()


@pytest.mark.parametrize("resize", ["detectron2", "torchvision", "mmdetection"])
@pytest.mark.parametrize(
    "changes",
    [
        {"flip_vertical": True, "quarter_turns": True},
        {"rotation": 30.0, "erase": 1.0},
        {"copy_paste": 1.0, "scale_jitter": (0.5, 2.0)},
        {"crop": "relative", "crop_size": (0.7, 0.7)},
    ],
)
def test_a_further_channel_leaves_the_others_as_they_would_be(folder, tmp_path, resize, changes):
    """8 bits: the first three channels have the bits of an RGB image with all augmentation."""
    (tmp_path / "rgb").mkdir()
    plain = CocoFolder(tmp_path / "rgb")
    for number in range(4):
        image = pixels(number).astype(np.uint8)
        np.save(tmp_path / "images" / f"{number}.npy", image)
        plain.add_object(plain.add_image(np.ascontiguousarray(image[..., :3])))
    eight_bits = dataclasses.replace(MODEL, pixel_type="uint8")
    rgb_model = dataclasses.replace(
        eight_bits, pixel_mean=MODEL.pixel_mean[:3], pixel_std=MODEL.pixel_std[:3]
    )
    four = batches_of(config_for(folder, eight_bits, resize=resize, **changes))
    three = batches_of(config_for(plain, rgb_model, resize=resize, **changes))
    for batch, rgb in zip(four, three, strict=True):
        assert batch.images.dtype == rgb.images.dtype and batch.images.shape[-1] == 4
        np.testing.assert_array_equal(batch.images[..., :3], rgb.images)
        np.testing.assert_array_equal(batch.gt.boxes, rgb.gt.boxes)
        assert batch.images[..., 3].any()


def test_floats_are_augmented_like_8_bits(folder, tmp_path):
    """Up to the rounding of 8 bits, and with corners of the means in their units."""
    for number in range(4):
        np.save(tmp_path / "images" / f"{number}.npy", pixels(number).astype(np.uint8))
    model = dataclasses.replace(MODEL, pixel_mean=(120.0, 110.0, 100.0, 90.0))
    changes = {"rotation": 30.0, "erase": 1.0, "copy_paste": 1.0, "crop": "relative"}
    floats, eight_bits = (
        batches_of(config_for(folder, dataclasses.replace(model, pixel_type=kind), **changes))
        for kind in ("float32", "uint8")
    )
    for batch, wanted in zip(floats, eight_bits, strict=True):
        assert batch.images.dtype == np.float32 and wanted.images.dtype == np.uint8
        np.testing.assert_allclose(batch.images, wanted.images, atol=2)
    outside = batches_of(config_for(folder, rotation=45.0, flip=False), count=1)[0].images
    assert (outside[:, 0, 0] == MODEL.pixel_mean).all()


def test_records_equal_the_folder(folder):
    dataset = read_coco(**folder.write())
    path, _ = prepare_records(dataset, folder.root / "records", mask_grid=GRID, num_workers=1, pixels=DEEP)
    config = config_for(folder, flip=True)
    sources = (
        RecordSource(path, mask_grid=GRID, pixels=DEEP),
        FolderSource(dataset, mask_grid=GRID, pixels=DEEP),
    )
    for made, wanted in zip(*(batches_of(config, source, 2) for source in sources), strict=True):
        np.testing.assert_array_equal(made.images, wanted.images)
    with pytest.raises(ValueError, match=r"records.*: image 1 \(0\.npy\): cannot be read: it has 4 channels"):
        RecordSource(path).read(0)


def test_files_that_disagree_with_the_config_are_listed(folder):
    np.save(folder.root / "images" / "1.npy", pixels(1)[..., :3])
    np.save(folder.root / "images" / "2.npy", pixels(2)[:9])
    with pytest.raises(ValueError) as error:
        open_data_source(config_for(folder))
    assert "it has 3 channels ([10, 20, 3] uint16), but the model takes [H W 4] float32" in str(error.value)
    assert "2.npy" in str(error.value) and "the file has 9x20 pixels" in str(error.value)
    eight_bits = dataclasses.replace(MODEL, pixel_type="uint8")
    with pytest.raises(ValueError, match=r"0\.npy.* its values are uint16 .*model\.pixel_type 'float32'"):
        open_data_source(config_for(folder, eight_bits))


def test_a_check_is_remembered_for_one_format_of_pixels(folder):
    dataset = read_coco(**folder.write())
    assert check_images(dataset, DEEP) == check_images(dataset, DEEP) == []
    assert len(check_images(dataset)) == len(check_images(dataset)) == 4
    assert check_images(dataset, DEEP) == []


def test_data_of_one_s_own(folder):
    class Own(list):
        categories = ("dog",)

    item = {"image": pixels(0), "labels": ["dog"], "boxes": [[2, 1, 10, 5]]}
    files = item | {"image": folder.root / "images" / "1.npy"}
    source = as_source(Own([item, files]), mask_grid=4, pixels=DEEP)
    for index in (0, 1):
        np.testing.assert_array_equal(source.read(index).pixels, pixels(index))
    with pytest.raises(ValueError, match=r"Own\[0\]: image must be a path or an array .*: it has 4 channels"):
        as_source(Own([item]), mask_grid=4)


def test_a_source_with_other_channels_is_an_error(folder):
    config = config_for(folder)
    source = FolderSource(read_coco(**folder.write()), mask_grid=GRID, pixels=DEEP)
    config.model = dataclasses.replace(MODEL, pixel_mean=(0.0,) * 5, pixel_std=(1.0,) * 5)
    with pytest.raises(ValueError, match=r"image \d has 4 channels; must have as many as .*, 5"):
        batches_of(config, source)


def test_what_is_outside_an_image_has_the_mean_of_each_channel():
    assert mean_colour(MODEL) == (120.0, 110.0, 100.0, 3000.0)
    bgr = dataclasses.replace(MODEL, pixel_order="bgr", pixel_mean=(103.5, 116.3, 123.7, 250.6))
    assert mean_colour(bgr) == (123.7, 116.3, 103.5, 250.6)
    assert mean_colour(dataclasses.replace(bgr, pixel_type="uint8")) == (124, 116, 104, 251)


def test_transparency_is_a_channel_for_a_model_with_four(folder):
    """As cameras' depth is often stored in the fourth channel of a PNG."""
    image = pixels(0).astype(np.uint8)
    for number in range(4):
        Image.fromarray(image, "RGBA").save(folder.root / "images" / f"{number}.npy", format="PNG")
    source = open_data_source(config_for(folder))
    np.testing.assert_array_equal(source.read(0).pixels, image)


def test_importers_take_sizes_from_headers(folder, tmp_path):
    assert upright_size((tmp_path / "images" / "0.npy").read_bytes(), name="") == ((10, 20), False)
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", pixels(0), photometric="minisblack", planarconfig="contig")
    assert upright_size((tmp_path / "a.tif").read_bytes(), name="") == ((10, 20), False)


def test_arrays_that_ultralytics_keeps_beside_the_images_are_no_images(folder, tmp_path):
    (tmp_path / "images" / "0.jpg").touch()
    found = find_images(tmp_path / "images")
    assert [path.name for path in found] == ["0.jpg", "1.npy", "2.npy", "3.npy"]


def test_a_yolo_folder_of_arrays_is_converted(tmp_path):
    from mrcnn_jax.data.importers.convert import Options, convert

    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "images" / "a.npy", pixels(0))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "classes.txt").write_text("dog\n")
    content = convert(tmp_path, Options()).content()
    assert content["images"] == [{"id": 1, "file_name": "images/a.npy", "height": 10, "width": 20}]
    assert json.dumps(content["annotations"][0]["bbox"]) == "[8.0, 3.0, 4.0, 4.0]"
