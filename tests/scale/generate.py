"""A dataset with the counts of COCO train2017 and tiny images, to see what its size alone costs.

    python tests/scale/generate.py --output=FOLDER

It writes ``train2017/``, ``annotations/instances_train2017.json`` with polygons, or RLE for crowds, and
``annotations/person_keypoints_train2017.json``. All follow from ``--seed``.
"""

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_jax.data.categories import COCO_KEYPOINTS
from mrcnn_jax.data.coco_categories import COCO
from mrcnn_jax.rle import Rle

# Width and height of images and how many of a hundred have them: roughly COCO's, a tenth of its pixels.
SIZES = {
    (64, 48): 42, (48, 64): 14, (64, 43): 18, (43, 64): 6, (64, 36): 3, (36, 64): 1, (64, 64): 3,
    (50, 38): 6, (38, 50): 2, (64, 53): 2, (48, 48): 2, (20, 15): 1,
}  # fmt: skip
PERSON = 1  # category id
IMAGES, ANNOTATIONS, KEYPOINTS = (
    "train2017", "annotations/instances_train2017.json", "annotations/person_keypoints_train2017.json",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """How much there is of what; the defaults are train2017's, that of crowds rounded."""

    images: int = 118_287
    empty_images: int = 1_021  # without an object
    objects: int = 860_001
    persons: int = 262_465  # objects that are persons
    crowds: int = 10_000

    def scaled(self, scale: float) -> "Counts":
        return Counts(**{name: round(scale * count) for name, count in vars(self).items()})


def generate(folder: Path, counts: Counts, *, seed: int, image_bytes: int = 0) -> None:
    """Writes the dataset below ``folder``, with files of images of at least ``image_bytes``."""
    rng = np.random.default_rng(seed)
    sizes = np.array(list(SIZES))[rng.choice(len(SIZES), counts.images, p=np.array([*SIZES.values()]) / 100)]
    per_image = objects_per_image(rng, counts)
    names = [f"{number:012d}.jpg" for number in range(1, counts.images + 1)]
    write_images(rng, folder / IMAGES, names, sizes, image_bytes)

    images = [
        {
            "license": 1,
            "file_name": name,
            "coco_url": f"http://images.example.org/train2017/{name}",
            "height": int(height),
            "width": int(width),
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm7.example.org/6116/{number:010d}_8a5b6f5e3c_z.jpg",
            "id": number,
        }
        for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), start=1)
    ]
    persons, crowds = chosen(rng, counts.objects, counts.persons), chosen(rng, counts.objects, counts.crowds)
    categories = [{"id": i, "name": name} for i, name in zip(COCO.ids, COCO.names, strict=True)]
    person = {"id": PERSON, "name": "person", "keypoints": list(COCO_KEYPOINTS)}
    (folder / ANNOTATIONS).parent.mkdir(parents=True, exist_ok=True)
    with open(folder / ANNOTATIONS, "w") as instances, open(folder / KEYPOINTS, "w") as with_keypoints:
        for file, entries in ((instances, categories), (with_keypoints, [person])):
            file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(entries)}, ')
            file.write('"annotations": [')
        separator = separator_of_person = ""
        owners = np.repeat(np.arange(counts.images), per_image)
        for index, owner in enumerate(owners.tolist()):
            entry = annotation(rng, index + 1, owner + 1, sizes[owner], persons[index], crowds[index])
            instances.write(separator + json.dumps(entry))
            separator = ", "
            if persons[index]:
                with_keypoints.write(separator_of_person + json.dumps(entry | keypoints(rng, entry)))
                separator_of_person = ", "
        for file in (instances, with_keypoints):
            file.write("]}")


def objects_per_image(rng: np.random.Generator, counts: Counts) -> np.ndarray:
    """Many images with one or two objects and few with many, up to about 90 as in COCO: ``[images]``."""
    filled = counts.images - counts.empty_images
    share = rng.gamma(0.8, size=filled)
    per_image = np.zeros(counts.images, np.int64)
    per_image[:filled] = 1 + rng.multinomial(counts.objects - filled, share / share.sum())
    return rng.permutation(per_image)


def chosen(rng: np.random.Generator, count: int, chosen_count: int) -> np.ndarray:
    """Bool ``[count]``, of which so many are True."""
    return rng.permutation(np.arange(count) < chosen_count)


def write_images(
    rng: np.random.Generator, folder: Path, names: list[str], sizes: np.ndarray, least_bytes: int
) -> None:
    """One file of noise for each size, written many times; zeros behind a file's end are not decoded."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for width, height in SIZES:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(buffer, "JPEG")
        files[width, height] = buffer.getvalue().ljust(least_bytes, b"\0")
    for name, size in zip(names, sizes.tolist(), strict=True):
        (folder / name).write_bytes(files[tuple(size)])


def annotation(
    rng: np.random.Generator, number: int, image: int, size: np.ndarray, person: bool, crowd: bool
) -> dict[str, Any]:
    """The entry of an object anywhere in its image, of any size up to the image's."""
    extent = size * rng.beta(0.7, 2.5, 2).clip(0.02)
    corner = rng.uniform(0, size - extent)
    x, y, width, height = np.round([*corner, *extent], 2).tolist()
    if crowd:
        segmentation: Any = crowd_mask(rng, size, corner, extent)
    else:
        segmentation = list(polygons(rng, corner, extent))
        points = np.concatenate(segmentation).reshape(-1, 2)
        low = points.min(axis=0)
        x, y, width, height = np.round([*low, *(points.max(axis=0) - low)], 2).tolist()
    return {
        "segmentation": segmentation,
        "area": round(width * height / 2, 4),
        "iscrowd": int(crowd),
        "image_id": image,
        "bbox": [x, y, width, height],
        "category_id": PERSON if person else int(rng.choice(COCO.ids[1:])),
        "id": number,
    }


def polygons(rng: np.random.Generator, corner: np.ndarray, extent: np.ndarray) -> Iterator[list[float]]:
    """One outline inside the box, sometimes more: 24 points together on average, rarely above 100."""
    for _part in range(1 + rng.binomial(2, 0.05)):
        points = 3 + round(rng.lognormal(2.6, 0.8))
        angles = np.sort(rng.uniform(0, 2 * np.pi, points))
        radius = rng.uniform(0.6, 1, points)
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
        yield np.round(corner + extent * (1 + around) / 2, 2).ravel().tolist()


def crowd_mask(
    rng: np.random.Generator, size: np.ndarray, corner: np.ndarray, extent: np.ndarray
) -> dict[str, Any]:
    """Noise in the box."""
    mask = np.zeros(size[::-1], bool)
    (left, top), (right, bottom) = corner.astype(int), np.ceil(corner + extent).astype(int)
    part = mask[top:bottom, left:right]
    part[:] = rng.random(part.shape) < 0.7
    return dict(Rle.from_bitmap(mask).uncompressed())


def keypoints(rng: np.random.Generator, entry: dict[str, Any]) -> dict[str, Any]:
    """Keypoints in the box of a person, of whom four in ten have none, as in COCO."""
    count = len(COCO_KEYPOINTS)
    x, y, width, height = entry["bbox"]
    visibility = rng.integers(0, 3, count) * (rng.random() < 0.6 and not entry["iscrowd"])
    points = np.stack([x + width * rng.random(count), y + height * rng.random(count), visibility], axis=1)
    points = points.astype(np.int64) * (visibility > 0)[:, None]
    return {"num_keypoints": int((visibility > 0).sum()), "keypoints": points.ravel().tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts")
    parser.add_argument("--image_bytes", type=int, default=0, help="of an image file at least; COCO: 160000")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generate(
        arguments.output,
        Counts().scaled(arguments.scale),
        seed=arguments.seed,
        image_bytes=arguments.image_bytes,
    )


if __name__ == "__main__":
    main()
