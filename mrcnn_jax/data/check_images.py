"""Checks that the image files of a dataset can be decoded and match its annotations."""

import contextlib
import hashlib
import os
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoDataset, CocoImage
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.source import check_size
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.pixels import RGB, PixelFormat


def check_images(dataset: CocoDataset, pixels: PixelFormat = RGB) -> list[Finding]:
    """A finding for each image that cannot be fully decoded as ``pixels``, or not at its annotation's size.

    A nearly black image, which may be in a depth of pixels that was misread, gives a warning. The first call
    decodes every image, in threads. Later calls for the same images and an unchanged annotation file decode
    only the images with findings before, which ``~/.cache/mrcnn_jax/checked`` records.
    """
    cache = _cache_file(dataset, pixels)
    bad_before = _read_bad_ids(cache)
    to_check = [image for image in dataset.images if bad_before is None or image.id in bad_before]
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(partial(_check, pixels=pixels), to_check, chunksize=16)
        progress = tqdm(results, "checking images", len(to_check), leave=False, unit="image", disable=None)
        findings = [finding for finding in progress if finding is not None]
    with contextlib.suppress(OSError):  # home directory not writable: all images are checked again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"bad": [finding.image_id for finding in findings]})
    return findings


def load_checked(image: CocoImage, pixels: PixelFormat = RGB) -> tuple[bytes | None, Finding | None]:
    """The bytes of an image file and a finding, or None in place of either.

    There are no bytes unless the file decodes fully at the annotated size, and no finding if all is in order;
    a nearly black image has both.
    """
    try:
        data, values = _decode(image, pixels)
    except ValueError as error:
        return None, _finding(image, str(error).removeprefix(f"{image.path}: "))
    if images.is_nearly_black(values):
        rule = f"is nearly black: no value exceeds {values.max()} of 255"
        return data, _finding(image, rule, warning=True)
    return data, None


def _check(image: CocoImage, pixels: PixelFormat) -> Finding | None:
    return load_checked(image, pixels)[1]


def _decode(image: CocoImage, pixels: PixelFormat) -> tuple[bytes, np.ndarray]:
    """The bytes of an image file and its pixels; raises ValueError unless it has the annotated size."""
    name = str(image.path)
    data = images.read_file(image.path)
    values = images.decode_image(data, pixels, name=name)
    check_size(values, (image.height, image.width), name)
    return data, values


def _finding(image: CocoImage, rule: str, *, warning: bool = False) -> Finding:
    return Finding(str(image.path), image.id, None, rule, warning)


def _cache_file(dataset: CocoDataset, pixels: PixelFormat) -> Path:
    """The cache file, named by a hash of the image paths and the annotation file's path, size and mtime.

    A format of the pixels other than RGB counts, too.
    """
    path = Path(dataset.name).resolve()
    status = path.stat()
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogatepass"))
    if not pixels.is_rgb:
        digest.update(f"\0{pixels}".encode())
    for image in dataset.images:
        digest.update(f"\0{image.path.absolute()}".encode(errors="surrogatepass"))
    return Path.home() / ".cache" / "mrcnn_jax" / "checked" / f"{digest.hexdigest()[:32]}.json"


def _read_bad_ids(cache: Path) -> set[int] | None:
    """The ids of the images found bad, or None if the images have not been checked."""
    try:
        return set(read_json(cache)["bad"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
