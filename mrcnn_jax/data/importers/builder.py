"""Builds the content of a COCO file from what the readers of the formats find."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mrcnn_jax.data.findings import Finding
from mrcnn_jax.data.importers.files import find_images
from mrcnn_jax.data.importers.regions import Region, to_coco
from mrcnn_jax.image_size import upright_size
from mrcnn_jax.images import Size, read_file

Keypoints = Mapping[str, tuple[float, float, int]]  # x y in pixels and COCO's visibility, by name


@dataclass(frozen=True)
class ImageFile:
    """An image of the dataset."""

    id: int
    file_name: str  # relative to the folder of images
    size: Size  # height and width of the upright image


class CocoBuilder:
    """Collects images and objects, what is wrong with the files, and what COCO's format has no place for."""

    def __init__(self, images: Path, *, categories: Sequence[str] = ()) -> None:
        """``images`` is the folder of images; ``categories``, if given, are the only ones that are kept."""
        if not images.is_dir():
            raise ValueError(f"{images}: there is no such folder of images")
        self.images = images
        self.findings: list[Finding] = []
        self.missing_images = 0
        self.left_out: Counter[str] = Counter()  # what was left out, as a noun in the plural and the reason
        self._chosen = tuple(categories)
        self._category_ids = {name: index for index, name in enumerate(categories, start=1)}
        self._images: dict[str, ImageFile] = {}
        self._described: set[str] = set()  # also those that are left out for what is wrong with them
        self._objects: list[
            tuple[int, int, str, dict[str, Any]]
        ] = []  # id, id of the image, category, fields
        self._keypoints: dict[int, Keypoints] = {}  # by id of the object
        self._keypoint_names: dict[str, dict[str, None]] = {}  # by category, in order

    def declare_categories(self, ids: Mapping[str, int]) -> None:
        """Sets the categories and their ids, as the source lists them, unless the user has chosen some."""
        if not self._chosen:
            self._category_ids = dict(ids)

    def declare_keypoints(self, category: str, names: Sequence[str]) -> None:
        """Sets the names and the order of a category's keypoints, if the source lists them."""
        self._keypoint_names[category] = dict.fromkeys(names)

    def problem(self, file: Path, rule: str) -> None:
        """Records that an entry of a file, named by ``rule``, is wrong."""
        self.findings.append(Finding(str(file), None, None, rule))

    def leave_out(self, what: str, count: int = 1) -> None:
        """Counts something correct that is left out."""
        self.left_out[what] += count

    def find_image(self, names: Iterable[str]) -> str | None:
        """The first of ``names``, relative to the folder of images, that is a file inside it; else None."""
        for name in names:
            name = os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/")
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts:
                continue
            if os.path.isfile(
                self.images / relative
            ):  # unlike Path.is_file, False for names that are too long
                return name
        return None

    def add_image(
        self, file: Path, names: Sequence[str], *, size: Size | None = None, image_id: int | None = None
    ) -> ImageFile | None:
        """The image that an annotation file describes: the first of ``names`` that exists.

        ``size`` is (height, width) as the file states it; ``image_id`` counts from 1 if not given. Returns
        None, and adds a finding, if there is no such image, if it cannot be opened or has another size, or if
        another entry has described it.
        """
        name = self.find_image(names)
        if name is None:
            self.missing_images += 1
            self.problem(file, f"image {names[0]!r}: there is no such file in {self.images}")
            return None
        self._described.add(name)
        if name in self._images:
            self.problem(file, f"image {name!r} is described more than once")
            return None
        try:
            upright, rotated = upright_size(read_file(self.images / name), name=str(self.images / name))
        except ValueError as error:
            self.problem(file, str(error))
            return None
        if size is not None and size != upright:
            hint = "; it was annotated without its EXIF rotation" if rotated and size == upright[::-1] else ""
            self.problem(
                file,
                f"image {name!r} has {upright[1]} x {upright[0]} pixels (width x height), "
                f"but was annotated at {size[1]} x {size[0]}{hint}",
            )
            return None
        identifier = len(self._images) + 1 if image_id is None else image_id
        self._images[name] = ImageFile(identifier, name, upright)
        return self._images[name]

    def remove_image(self, image: ImageFile) -> None:
        """Takes an image back before it has objects, because its file of annotations cannot be read.

        Without it, all that is in the image would count as background.
        """
        del self._images[image.file_name]

    def leave_out_other_images(self, what: str) -> None:
        """Counts the image files as left out that no entry has described, correctly or not."""
        files = find_images(self.images)
        described = sum(path.relative_to(self.images).as_posix() in self._described for path in files)
        if others := len(files) - described:
            self.leave_out(what, others)

    def add_object(
        self,
        image: ImageFile,
        category: str,
        regions: Sequence[Region],
        *,
        file: Path,
        entry: str,
        keypoints: Keypoints | None = None,
    ) -> None:
        """Adds an object; ``entry`` names it in ``file``, in a finding if it cannot be represented.

        ``keypoints`` are those that are labelled. The names that are not declared follow in the order in
        which they first appear.
        """
        try:
            fields = to_coco(regions, image.size)
        except ValueError as error:
            self.problem(file, f"{entry}: {error}")
            return
        self.add_fields(image, category, fields, keypoints=keypoints)

    def add_fields(
        self,
        image: ImageFile,
        category: str,
        fields: dict[str, Any],
        *,
        annotation_id: int | None = None,
        keypoints: Keypoints | None = None,
    ) -> None:
        """Adds an object by its COCO fields; ``annotation_id`` counts from 1 if not given."""
        if self._chosen and category not in self._chosen:
            self.leave_out(f"objects of category {category!r}: not among --categories")
            return
        identifier = len(self._objects) + 1 if annotation_id is None else annotation_id
        self._objects.append((identifier, image.id, category, fields))
        if keypoints:
            self._keypoints[identifier] = keypoints
            self._keypoint_names.setdefault(category, {}).update(dict.fromkeys(keypoints))

    def content(self) -> dict[str, Any]:
        """The COCO file: ``images``, ``annotations`` and ``categories``.

        Category ids are those of the source; if it has none, they count from 1 in the order of the names.
        Categories have keypoints if any of their objects has.
        """
        used = {category for key, _, category, _ in self._objects if key in self._keypoints}
        names = {category: list(self._keypoint_names[category]) for category in used}
        ids = self._category_ids
        if not ids:
            found = sorted({category for _, _, category, _ in self._objects})
            ids = {name: index for index, name in enumerate(found, start=1)}
        return {
            "images": [
                {"id": item.id, "file_name": item.file_name, "height": item.size[0], "width": item.size[1]}
                for item in self._images.values()
            ],
            "annotations": [
                {"id": key, "image_id": image, "category_id": ids[category], "iscrowd": 0, **fields}
                | (self._keypoint_fields(key, names[category]) if category in names else {})
                for key, image, category, fields in self._objects
            ],
            "categories": [
                {"id": index, "name": name} | ({"keypoints": names[name]} if name in names else {})
                for name, index in ids.items()
            ],
        }

    def _keypoint_fields(self, identifier: int, names: Sequence[str]) -> dict[str, Any]:
        keypoints = self._keypoints.get(identifier, {})
        values = [number for name in names for number in keypoints.get(name, (0, 0, 0))]
        return {"keypoints": values, "num_keypoints": len(keypoints)}
