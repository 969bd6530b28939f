"""Checks that the image files of a dataset can be decoded and match its annotations."""

import contextlib
import hashlib
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from mrcnn_jax import images
from mrcnn_jax.data.coco import CocoDataset, CocoImage
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.source import check_size
from mrcnn_jax.json_files import read_json, write_json


def check_images(dataset: CocoDataset) -> list[Finding]:
    """A finding for each image that cannot be fully decoded or whose size differs from its annotation.

    The first call decodes every image, in threads. Later calls for the same images and an unchanged
    annotation file decode only the images found bad before, which ``~/.cache/mrcnn_jax/checked`` records.
    """
    cache = _cache_file(dataset)
    bad_before = _read_bad_ids(cache)
    to_check = [image for image in dataset.images if bad_before is None or image.id in bad_before]
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(load_checked, to_check, chunksize=16)
        progress = tqdm(results, "checking images", len(to_check), leave=False, unit="image", disable=None)
        findings = [result for result in progress if isinstance(result, Finding)]
    with contextlib.suppress(OSError):  # home directory not writable: all images are checked again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"bad": [finding.image_id for finding in findings]})
    return findings


def load_checked(image: CocoImage) -> bytes | Finding:
    """The bytes of an image file if it decodes fully at the annotated size, otherwise a finding."""
    name = str(image.path)
    try:
        data = images.read_file(image.path)
        check_size(images.decode_image(data, name=name), (image.height, image.width), name)
    except ValueError as error:
        return Finding(name, image.id, None, str(error).removeprefix(f"{name}: "))
    return data


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
