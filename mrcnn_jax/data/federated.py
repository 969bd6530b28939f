"""What LVIS's annotations have besides COCO's (arXiv 1908.03195, https://www.lvisdataset.org/dataset).

In a federated dataset an image is annotated for some of the categories only: those of its objects, and its
negative ones, of which it has none. Nothing is known of the others there.

Shapes: N images, C categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from mrcnn_jax.data import fields
from mrcnn_jax.image_names import LVIS_FIELD
from mrcnn_jax.json_files import read_json, write_json

NOT_EXHAUSTIVE_FIELD = "not_exhaustive_category_ids"
FREQUENCIES = ("r", "c", "f")  # rare: in 1 to 10 training images, common: 11 to 100, frequent: more


@dataclass(frozen=True)
class Federated:
    """The categories that a federated dataset's images are annotated for, as labels from 1."""

    frequencies: tuple[str, ...]  # C, each one of FREQUENCIES, or "" if the file does not say
    negative: tuple[tuple[int, ...], ...]  # N: categories that the image has no object of
    not_exhaustive: tuple[tuple[int, ...], ...]  # N: categories of which objects may be missing

    def first(self, count: int | None) -> "Federated":
        """The same for the first ``count`` images; None: for all."""
        return Federated(self.frequencies, self.negative[:count], self.not_exhaustive[:count])

    def with_labels(self, to_run: np.ndarray, num_categories: int) -> "Federated":
        """The same with other labels, ``to_run[label]`` in place of each label, for so many categories."""
        frequencies = [""] * num_categories
        for label, frequency in enumerate(self.frequencies, start=1):
            frequencies[to_run[label] - 1] = frequency

        def renamed(labels: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
            return tuple(tuple(to_run[list(of_image)].tolist()) if of_image else () for of_image in labels)

        return Federated(tuple(frequencies), renamed(self.negative), renamed(self.not_exhaustive))


def is_federated(image_entries: Sequence[Any]) -> bool:
    """Whether these are the images of an LVIS file."""
    return any(isinstance(entry, dict) and LVIS_FIELD in entry for entry in image_entries)


def read_frequencies(entries: Sequence[dict], where: str) -> tuple[str, ...]:
    """The frequency of each of a file's categories, by ascending id, "" if it does not say.

    Raises ValueError, prefixed with ``where``, for any other frequency than those of LVIS.
    """
    found: dict[int, str] = {}
    for entry in entries:
        key = fields.integer(entry, "id", where)
        found[key] = "" if (frequency := entry.get("frequency")) is None else frequency
        if found[key] not in ("", *FREQUENCIES):
            raise fields.error(f"{where}: category {key}", "frequency", "'r', 'c' or 'f'", frequency)
    return tuple(found[key] for key in sorted(found))


def write_federated(path: Path, federated: Federated) -> None:
    """Writes a file that ``read_federated`` reads."""
    write_json(path, vars(federated))


def read_federated(path: Path, *, num_images: int, num_categories: int) -> Federated:
    """What ``write_federated`` wrote, perhaps on a stranger's machine.

    Raises ValueError, naming the file, unless it is of so many images and categories, and OSError if it
    cannot be read.
    """
    content = read_json(path)
    names = get_type_hints(Federated)
    if not isinstance(content, dict) or content.keys() != names.keys():
        raise ValueError(f"{path}: must be an object with {', '.join(names)}")
    wanted = {"frequencies": num_categories, "negative": num_images, "not_exhaustive": num_images}
    for name, count in wanted.items():
        value = content[name]
        is_valid = _is_frequency if name == "frequencies" else lambda item: _are_labels(item, num_categories)
        if not isinstance(value, list) or len(value) != count or not all(map(is_valid, value)):
            raise ValueError(f"{path}: {name} must have a valid value for each of {count}")
    return Federated(
        tuple(content["frequencies"]),
        tuple(map(tuple, content["negative"])),
        tuple(map(tuple, content["not_exhaustive"])),
    )


def _is_frequency(value: Any) -> bool:
    return isinstance(value, str) and value in ("", *FREQUENCIES)


def _are_labels(value: Any, num_categories: int) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 1 <= item <= num_categories for item in value
    )
