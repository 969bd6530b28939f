import io

import numpy as np
from PIL import Image

from mrcnn_jax.data import check_images as module
from mrcnn_jax.data.check_images import check_images
from mrcnn_jax.data.coco import read_coco


def test_images_are_decoded_once(folder, monkeypatch):
    for _ in range(2):
        folder.add_image()
    path = folder.root / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:-200])
    dataset = read_coco(**folder.write())
    decoded = []
    decode = module._decode
    monkeypatch.setattr(
        module, "_decode", lambda image, pixels: decoded.append(image.id) or decode(image, pixels)
    )
    assert [finding.image_id for finding in check_images(dataset)] == [1]
    assert sorted(decoded) == [1, 2]
    decoded.clear()
    assert [finding.image_id for finding in check_images(dataset)] == [1]
    assert decoded == [1]  # only the bad one, which may have been repaired
    Image.new("RGB", (20, 10), "red").save(path)
    assert check_images(dataset) == [] and check_images(dataset) == []
    assert decoded == [1, 1]
    folder.content["info"] = "another file"
    check_images(read_coco(**folder.write()))
    assert sorted(decoded) == [1, 1, 1, 2]


def test_a_nearly_black_image_is_a_warning(folder):
    """Such as 12 bits in each of three channels of 16, of which Pillow keeps the high byte."""
    folder.add_object(folder.add_image(np.full((10, 20, 3), 15, np.uint8)))
    folder.add_image(np.full((10, 20, 3), 16, np.uint8))
    dataset = read_coco(**folder.write())
    for _ in range(2):  # also when only images with findings are decoded again
        (finding,) = check_images(dataset)
        assert finding.warning and finding.image_id == 1
        assert finding.rule == "is nearly black: no value exceeds 15 of 255"


def test_works_without_a_writable_home(folder, monkeypatch, tmp_path):
    folder.add_image()
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert check_images(read_coco(**folder.write())) == []


def test_jpegs_truncated_anywhere_are_found(folder):
    """Even though Pillow can decode the intact part of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(
        buffer, "JPEG"
    )
    whole = buffer.getvalue()
    for number, fraction in enumerate((0.01, 0.2, 0.5, 0.9, 0.999)):
        name = f"{number}.jpg"
        folder.add_image(name=name, size=(64, 64), write=False)
        (folder.root / "images" / name).write_bytes(whole[: int(len(whole) * fraction)])
    assert len(check_images(read_coco(**folder.write()))) == 5
