"""Checks that the image files of a dataset can be decoded and match its annotations."""

import contextlib
import hashlib
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoDataset, CocoImage
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.source import check_size
from mrcnn_jax.json_files import read_json, write_json


def check_images(dataset: CocoDataset) -> list[Finding]:
    """A finding for each image that cannot be fully decoded or whose size differs from its annotation.

    A nearly black image, which may be in a depth of pixels that was misread, gives a warning. The first call
    decodes every image, in threads. Later calls for the same images and an unchanged annotation file decode
    only the images with findings before, which ``~/.cache/mrcnn_jax/checked`` records.
    """
    cache = _cache_file(dataset)
    bad_before = _read_bad_ids(cache)
    to_check = [image for image in dataset.images if bad_before is None or image.id in bad_before]
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(_check, to_check, chunksize=16)
        progress = tqdm(results, "checking images", len(to_check), leave=False, unit="image", disable=None)
        findings = [finding for finding in progress if finding is not None]
    with contextlib.suppress(OSError):  # home directory not writable: all images are checked again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"bad": [finding.image_id for finding in findings]})
    return findings


def load_checked(image: CocoImage) -> tuple[bytes | None, Finding | None]:
    """The bytes of an image file and a finding, or None in place of either.

    There are no bytes unless the file decodes fully at the annotated size, and no finding if all is in order;
    a nearly black image has both.
    """
    try:
        data, pixels = _decode(image)
    except ValueError as error:
        return None, _finding(image, str(error).removeprefix(f"{image.path}: "))
    if images.is_nearly_black(pixels):
        rule = f"is nearly black: no value exceeds {pixels.max()} of 255"
        return data, _finding(image, rule, warning=True)
    return data, None


def _check(image: CocoImage) -> Finding | None:
    return load_checked(image)[1]


def _decode(image: CocoImage) -> tuple[bytes, np.ndarray]:
    """The bytes of an image file and its pixels; raises ValueError unless it has the annotated size."""
    name = str(image.path)
    data = images.read_file(image.path)
    pixels = images.decode_image(data, name=name)
    check_size(pixels, (image.height, image.width), name)
    return data, pixels


def _finding(image: CocoImage, rule: str, *, warning: bool = False) -> Finding:
    return Finding(str(image.path), image.id, None, rule, warning)


def _cache_file(dataset: CocoDataset) -> Path:
    """The cache file, named by a hash of the image paths and the annotation file's path, size and mtime."""
    path = Path(dataset.name).resolve()
    status = path.stat()
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogatepass"))
    for image in dataset.images:
        digest.update(f"\0{image.path.absolute()}".encode(errors="surrogatepass"))
    return Path.home() / ".cache" / "mrcnn_jax" / "checked" / f"{digest.hexdigest()[:32]}.json"


def _read_bad_ids(cache: Path) -> set[int] | None:
    """The ids of the images found bad, or None if the images have not been checked."""
    try:
        return set(read_json(cache)["bad"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
