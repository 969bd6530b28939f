"""The objects found in one image, in pixels of the original image.

Shapes: N objects, K keypoints, H x W pixels of the original image, D rows of detections, M x M cells of a
mask, P corners of a polygon.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from mrcnn_jax.images import read_image, to_pixels
from mrcnn_jax.inference.outlines import signed_area, trace_outlines
from mrcnn_jax.inference.paste import PastedMask, paste_mask
from mrcnn_jax.pixels import RGB, PixelFormat
from mrcnn_jax.rle import CompressedRle, Rle
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.types import Detections

_SHOWN = 5  # objects named in a result's repr


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The objects of one image, best first; ``len(result)`` is their number.

    ``result[0]``, ``result[:3]`` and ``result[result.labels == 1]`` are the results of some of them.
    """

    boxes: Float[np.ndarray, "n 4"]  # x1 y1 x2 y2 in pixels, inside the image
    scores: Float[np.ndarray, " n"]  # 0 to 1
    labels: Int[np.ndarray, " n"]  # 1 to len(categories)
    image_size: tuple[int, int]  # height, width
    categories: Categories
    crops: tuple[PastedMask, ...] | None = None  # one mask per object; None if the model has no masks
    keypoints: Float[np.ndarray, "n k 3"] | None = None  # x, y in pixels and a score (a logit); see to_result
    path: Path | None = None  # the image's file; None if it did not come from one
    keypoint_offset: float = 0.0  # pixels to subtract to get the coordinates of COCO's files
    pixels: PixelFormat = RGB  # what the image is

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        """As in "Result(2 objects in 480 x 640: person 0.99, dog 0.87)"; the image is height x width."""
        scores = self.scores[:_SHOWN].tolist()
        objects = [f"{name} {score:.2f}" for name, score in zip(self.names, scores, strict=False)]
        if len(self) > _SHOWN:
            objects.append("...")
        number = "1 object" if len(self) == 1 else f"{len(self) or 'no'} objects"
        height, width = self.image_size
        return f"Result({number} in {height} x {width}{': ' if objects else ''}{', '.join(objects)})"

    def __getitem__(self, index: Any) -> "Result":
        """Some of the objects: ``index`` is a number, a slice, or an array or list of numbers or bools.

        Raises IndexError, as NumPy does, if it is out of range or a bool array of another length.
        """
        keep = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            crops=None if self.crops is None else tuple(self.crops[i] for i in keep),
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )

    @property
    def file_name(self) -> str:
        """The name of the image's file, without folders; "" if it did not come from one."""
        return self.path.name if self.path else ""

    @property
    def names(self) -> list[str]:
        """The name of each object's category."""
        return [self.categories.names[label - 1] for label in self.labels]

    @cached_property
    def masks(self) -> Bool[np.ndarray, "n h w"] | None:
        """Each object's mask over the whole image, computed on first access; None without masks.

        They take N x H x W bytes: 1.2 GB for 100 objects in a 12-megapixel photo. ``crops`` (each the size of
        its object) and ``segmentations`` hold the same masks in a thousandth of that.
        """
        if self.crops is None:
            return None
        masks = np.zeros((len(self), *self.image_size), bool)
        for mask, crop in zip(masks, self.crops, strict=True):
            crop.write(mask)
        return masks

    @cached_property
    def segmentations(self) -> list[CompressedRle] | None:
        """Each mask as COCO's compressed run-length encoding of the whole image; None without masks."""
        if self.crops is None:
            return None
        return [
            Rle.from_crop(crop.mask, top=crop.top, left=crop.left, image_size=self.image_size).compressed()
            for crop in self.crops
        ]

    def above(self, score_threshold: float) -> "Result":
        """The objects whose score is at least ``score_threshold``."""
        return self[self.scores >= score_threshold]

    def polygons(self, *, holes: bool = True) -> list[list[Int[np.ndarray, "p 2"]]] | None:
        """Each mask's outlines as polygons, x y in pixels of the image; None without masks.

        An object has one polygon per part, and one per hole unless ``holes`` is False. The outline of a hole
        runs the other way round, see ``trace_outlines``. The polygons follow the edges of the pixels, so that
        filling them gives exactly the mask.
        """
        if self.crops is None:
            return None
        outlines = [trace_outlines(crop) for crop in self.crops]
        if holes:
            return outlines
        return [[polygon for polygon in polygons if signed_area(polygon) > 0] for polygons in outlines]

    def plot(self, image: str | Path | Image.Image | np.ndarray | None = None) -> Image.Image:
        """A picture of the image with the objects drawn on it, as by ``mrcnn-jax predict``.

        A result does not keep its image's pixels: they are read again from ``path``, or from ``image``, a
        file, a Pillow image or an array of ``pixels``, by default RGB [H W 3]. An image under 640 pixels is
        enlarged (see ``draw``). Raises ValueError if there is no image, or if it cannot be read or has
        another size.
        """
        from mrcnn_jax.inference.draw import draw  # here, because it imports this module

        source = self.path if image is None else image
        if source is None:
            raise ValueError("this result's image did not come from a file: give it, as in plot(image)")
        if isinstance(source, str | Path):
            values = read_image(source, self.pixels)
        elif isinstance(source, Image.Image):
            values = to_pixels(source, self.pixels)
        else:
            values = source if self.pixels.is_rgb else self.pixels.convert(source)
        return Image.fromarray(draw(self.pixels.show(values), self))

    def save(self, file: str | Path, image: str | Path | Image.Image | np.ndarray | None = None) -> None:
        """Writes the picture of ``plot`` to ``file``, in the format of its ending (.png, .jpg and others).

        An existing file is replaced. Raises ValueError like ``plot`` and for an unknown ending, and OSError
        if the file cannot be written.
        """
        self.plot(image).save(file)

    def to_supervision(self) -> Any:
        """The objects as a ``supervision.Detections``, for that library's trackers and annotators.

        ``class_id`` is the label minus 1, the index of the name in ``categories.names``; the names are in
        ``data["class_name"]``. Keypoints are left out. Masks cover the whole image (see ``masks``). It was
        tested with supervision 0.31. Raises ImportError if the library is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the library: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """The objects as JSON-serialisable entries of a COCO results list.

        ``file_name`` is present if the image came from a file. ``bbox`` is x, y, width, height, rounded to
        0.001 pixels. ``segmentation`` is present if the model has
        masks, ``keypoints`` (x, y, 1 for each) if the object's category has keypoints.
        """
        entries = []
        for i, label in enumerate(self.labels.tolist()):
            x1, y1, x2, y2 = self.boxes[i].tolist()
            entry: dict[str, Any] = {
                "image_id": image_id,
                **({"file_name": self.file_name} if self.path else {}),
                "category_id": self.categories.ids[label - 1],
                "category": self.categories.names[label - 1],
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(self.scores[i]), 6),
            }
            if self.segmentations is not None:
                entry["segmentation"] = self.segmentations[i]
            if self.keypoints is not None and label in self.categories.keypoint_labels:
                points = self.keypoints[i, :, :2] - self.keypoint_offset
                entry["keypoints"] = [
                    value for x, y in points.tolist() for value in (round(x, 3), round(y, 3), 1)
                ]
            entries.append(entry)
        return entries


def to_result(
    detections: Detections,
    *,
    size: tuple[int, int],
    image_size: tuple[int, int],
    categories: Categories,
    mask_threshold: float = 0.5,
    mask_paste: str = "detectron2",
    keypoint_offset: float = 0.0,
    path: Path | None = None,
    pixels: PixelFormat = RGB,
) -> Result:
    """The valid detections of one image, scaled from the resized image back to the original.

    ``detections`` are those of one image, without the batch axis, as NumPy arrays: ``boxes [D 4]``,
    ``masks [D M M]`` and so on. ``size`` is the height and width of the resized image before padding,
    ``image_size`` that of the original, whose format is ``pixels``. Boxes are clipped to the image, and
    objects whose box becomes empty are dropped (Detectron2's ``detector_postprocess``). ``mask_paste`` is the
    ``rule`` of ``paste_mask``. Keypoints may lie outside the image; they are zeros if the object's category
    has none. Raises ``ValueError`` for a label that is not one of ``categories``.
    """
    height, width = image_size
    scale = np.array([width / size[1], height / size[0]], np.float32)  # x, y
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(np.asarray(detections.boxes, np.float32) * np.tile(scale, 2), 0, limit)
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    keep = np.flatnonzero(np.asarray(detections.valid) & has_area)
    labels = np.asarray(detections.labels)[keep]
    if len(labels) and not (labels.min() >= 1 and labels.max() <= len(categories)):
        raise ValueError(
            f"detections have labels {labels.min()} to {labels.max()}; with {len(categories)} categories "
            f"labels are 1 to {len(categories)}"
        )
    crops = None
    if detections.masks is not None:
        masks = np.asarray(detections.masks, np.float32)
        crops = tuple(
            paste_mask(masks[i], boxes[i], image_size, mask_threshold, rule=mask_paste) for i in keep
        )
    keypoints = None
    if detections.keypoints is not None:
        keypoints = np.array(detections.keypoints, np.float32)[keep]
        keypoints[..., :2] *= scale
        keypoints[~np.isin(labels, categories.keypoint_labels)] = 0
    return Result(
        boxes=boxes[keep],
        scores=np.asarray(detections.scores, np.float32)[keep],
        labels=labels,
        image_size=image_size,
        categories=categories,
        crops=crops,
        keypoints=keypoints,
        path=path,
        keypoint_offset=keypoint_offset,
        pixels=pixels,
    )
