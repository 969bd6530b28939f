"""Whether the image files of a data set are what its annotations say."""

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
    """The images whose files cannot be decoded whole, or are of another size than the annotations say.

    Every image is decoded once, in threads, and only those that were found bad when the same data set, its
    annotation file unchanged, is opened again: ``~/.cache/mrcnn_jax/checked`` remembers which these are.
    """
    memory = _memory(dataset)
    bad_before = _remembered(memory)
    to_check = [image for image in dataset.images if bad_before is None or image.id in bad_before]
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(load_checked, to_check, chunksize=16)
        progress = tqdm(results, "checking images", len(to_check), leave=False, unit="image", disable=None)
        findings = [result for result in progress if isinstance(result, Finding)]
    with contextlib.suppress(OSError):  # a home that cannot be written to: checked again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"bad": [finding.image_id for finding in findings]})
    return findings


def load_checked(image: CocoImage) -> bytes | Finding:
    """The file of an image that can be decoded whole and is of its size, else what is wrong with it."""
    name = str(image.path)
    try:
        data = images.read_file(image.path)
        check_size(images.decode_image(data, name=name), (image.height, image.width), name)
    except ValueError as error:
        return Finding(name, image.id, None, str(error).removeprefix(f"{name}: "))
    return data


def _memory(dataset: CocoDataset) -> Path:
    """The file about these images, named by their paths and by the annotation file's path, size and time."""
    path = Path(dataset.name).resolve()
    status = path.stat()
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogatepass"))
    for image in dataset.images:
        digest.update(f"\0{image.path.absolute()}".encode(errors="surrogatepass"))
    return Path.home() / ".cache" / "mrcnn_jax" / "checked" / f"{digest.hexdigest()[:32]}.json"


def _remembered(memory: Path) -> set[int] | None:
    """The ids of the images found bad, or None if the images have not been checked."""
    try:
        return set(read_json(memory)["bad"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
