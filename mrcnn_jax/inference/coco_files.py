"""Writes what was found in many images as COCO files: a results list, and a dataset for labelling tools."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mrcnn_jax.inference.coco_sections import INFO, coco_categories, write_list
from mrcnn_jax.inference.partial_results import ImageResults
from mrcnn_jax.inference.results import Result
from mrcnn_jax.json_files import dumps, replacing
from mrcnn_jax.runs.categories import UNUSED, Categories

_NOT_COCOS = ("file_name", "category")  # fields of ``Result.to_coco`` for people who read the list

# Written as they are read, one image at a time, so that any number of them fits in memory.
_Results = Iterable[tuple[int, ImageResults]]


def write_detections(
    path: Path, results: _Results, image_ids: Sequence[int], *, only_cocos: bool = False
) -> None:
    """Writes a COCO results list, which pycocotools' ``loadRes`` takes.

    ``results`` are indices into ``image_ids`` and what was found in those images. With ``only_cocos``, the
    entries have no fields but COCO's, and none is of an unused label: the list is what COCO's server takes.
    The file is replaced at the end, atomically.
    """
    entries = (
        entry | {"image_id": image_ids[index]} for index, found in results for entry in found["objects"]
    )
    if only_cocos:
        entries = (
            {name: value for name, value in entry.items() if name not in _NOT_COCOS}
            for entry in entries
            if entry["category"] != UNUSED
        )
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        write_list(file, entries, exact=False)
        file.write("\n")


def write_dataset(
    path: Path,
    results: _Results,
    image_ids: Sequence[int],
    images: Sequence[Path],
    categories: Categories,
) -> None:
    """Writes a COCO dataset of the ``annotations`` in ``results``, with ids from 1.

    An image's ``file_name`` is its path from the folder that all ``images`` have in common, exact even if it
    is not UTF-8, so that the dataset can be trained on. The file is replaced at the end, atomically.
    """
    folder = os.path.commonpath([image.absolute().parent for image in images])
    entries: list[dict[str, Any]] = []

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for index, found in results:
            height, width = found["size"]
            name = Path(os.path.relpath(found["file"], folder)).as_posix()
            entries.append({"id": image_ids[index], "file_name": name, "width": width, "height": height})
            for annotation in found.get("annotations", []):
                number += 1
                yield {"id": number, "image_id": image_ids[index]} | annotation

    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {dumps(INFO)},\n"licenses": [],\n"categories": ')
        write_list(file, coco_categories(categories), exact=True)
        file.write(',\n"annotations": ')
        write_list(file, annotations(), exact=True)
        file.write(',\n"images": ')
        write_list(file, entries, exact=True)
        file.write("}\n")


def to_annotations(result: Result) -> list[dict[str, Any]]:
    """The objects as JSON-serialisable annotations of a COCO dataset, without ids.

    ``segmentation`` has the outer outlines of the mask's parts as polygons, which labelling tools can edit;
    holes are filled. It is empty if there are no masks. ``area`` is that of the mask, or of the box without
    masks. ``score`` is not COCO's, and is there to sort by. Keypoints are all marked as visible.
    """
    polygons = result.polygons(holes=False)
    annotations = []
    for i, entry in enumerate(result.to_coco(0)):
        if entry["category"] == UNUSED:
            continue
        _, _, width, height = entry["bbox"]
        annotation = {
            "category_id": entry["category_id"],
            "bbox": entry["bbox"],
            "area": round(width * height, 3) if result.crops is None else int(result.crops[i].mask.sum()),
            "iscrowd": 0,
            "score": entry["score"],
            "segmentation": [polygon.ravel().tolist() for polygon in polygons[i]] if polygons else [],
        }
        if "keypoints" in entry:
            visible = entry["keypoints"]
            visible[2::3] = [2] * (len(visible) // 3)
            annotation |= {"keypoints": visible, "num_keypoints": len(visible) // 3}
        annotations.append(annotation)
    return annotations
