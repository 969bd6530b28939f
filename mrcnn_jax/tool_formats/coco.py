"""Writes ``labels.json``, a COCO dataset: https://cocodataset.org/#format-data.

FiftyOne, supervision, CVAT and others read it. Annotations also have a ``score``, which FiftyOne takes for
the confidence.
"""

from collections.abc import Iterator
from typing import Any

from mrcnn_jax.images import Size
from mrcnn_jax.inference.coco_sections import INFO, coco_categories, write_list
from mrcnn_jax.json_files import dumps
from mrcnn_jax.rle import Rle
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.tool_formats.folder import OutputFolder
from mrcnn_jax.tool_formats.found import Found, FoundObject
from mrcnn_jax.tool_formats.keypoints import to_coco
from mrcnn_jax.tool_formats.polygons import has_holes, outlines


def write_coco(found: Found, folder: OutputFolder, *, tolerance: float) -> None:
    """Writes the dataset; a mask is an RLE if it has holes, which COCO's polygons cannot have.

    Objects of the categories that have keypoints have ``keypoints``, with those that are there visible (2).
    """
    images: list[dict[str, Any]] = []

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for image in found:
            height, width = image.size
            images.append({"id": image.id, "file_name": image.name, "width": width, "height": height})
            for item in image.objects:
                number += 1
                yield {
                    "id": number,
                    "image_id": image.id,
                    "category_id": found.categories.ids[item.label - 1],
                    **_fields(item, image.size, tolerance),
                    **_keypoints(item, found.categories),
                }

    with folder.open("labels.json") as file:
        file.write(f'{{"info": {dumps(INFO)},\n"licenses": [],\n"categories": ')
        write_list(file, coco_categories(found.categories), exact=True)
        file.write(',\n"annotations": ')
        write_list(file, annotations(), exact=True)
        file.write(',\n"images": ')
        write_list(file, images, exact=True)
        file.write("}\n")


def _fields(item: FoundObject, size: Size, tolerance: float) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    bbox = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
    area: float = round(bbox[2] * bbox[3], 3)
    segmentation: Any = []
    if item.mask is not None:
        area = int(item.mask.mask.sum())
        polygons = outlines(item.mask, tolerance)
        segmentation = [polygon.ravel().tolist() for polygon in polygons]
        if has_holes(polygons):
            crop = item.mask
            segmentation = Rle.from_crop(
                crop.mask, top=crop.top, left=crop.left, image_size=size
            ).compressed()
    score = {} if item.score is None else {"score": item.score}
    return {"bbox": bbox, "area": area, "iscrowd": 0, "segmentation": segmentation, **score}


def _keypoints(item: FoundObject, categories: Categories) -> dict[str, Any]:
    if item.label not in categories.keypoint_labels:
        return {}
    return {
        "keypoints": to_coco(item.keypoints, categories.keypoint_names),
        "num_keypoints": len(item.keypoints),
    }
