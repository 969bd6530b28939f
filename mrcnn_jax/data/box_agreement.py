"""Compares each box with the extent of its mask, and recognises boxes that are not [x, y, width, height].

A mask outside its object's box trains to nothing, because only what lies inside the box is a target. Training
would not fail, so the data have to be compared here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn_jax.data.coco_fields import Box, Segmentation
from mrcnn_jax.data.findings import Finding
from mrcnn_jax.images import Size
from mrcnn_jax.rle import Rle

# A box fits if its IoU with the extent of its mask is at least this. Of the 1350 objects in 159 images of
# COCO 2017 and the 305 of the balloon dataset, the lowest IoU is 0.9995. Boxes drawn by hand around a mask
# are well above 0.5, and boxes in another format below it unless they are near the upper left corner.
_SMALLEST_IOU = 0.5
# It also fits if no edge is off by more than this many pixels, as rounding does to tiny objects.
_LARGEST_OFFSET = 2.0
_RECOGNISED = 0.8  # IoU from which a box that was read in another format is taken to be in that format
_INSIDE = 0.95  # share of its area from which one of the two is taken to lie inside the other
_LARGEST_SHARE = 0.1  # of misfits that are slips of the annotator; more are one error for the whole file
_FEWEST = 3  # boxes from which on a file is judged as a whole
_LISTED = 5  # warnings of one kind that are listed one by one
_SMALLEST_SIDE = 32  # pixels; boxes within the first pixel of images smaller than this prove nothing
_SMALLEST_REACH = (
    0.5  # of the images' sides: boxes that all end before, to the right and down, look scaled ...
)
_MANY = 20  # ... if they are at least so many

_CORNERS = "[x1, y1, x2, y2] in place of [x, y, width, height]"
_CENTRED = "[x centre, y centre, width, height] in place of [x, y, width, height]"
_UPSIDE_DOWN = "measured from the lower edge of the image, in place of the upper"
_TRANSPOSED = "[y, x, height, width] in place of [x, y, width, height]"
_NORMALISED = "normalised to between 0 and 1, in place of pixels"
_MASK_NORMALISED = "in pixels, but the segmentation is normalised to between 0 and 1"
_SCALED = "scaled"
_EMPTY = "empty"
_LARGER = "much larger than the segmentation"
_SMALLER = "much smaller than the segmentation"
_ELSEWHERE = "of another object or image"


@dataclass(frozen=True, slots=True)
class _Misfit:
    """A box that does not fit its mask."""

    image_id: int
    annotation_id: int
    bbox: Sequence[float]  # as in the file
    extent: Box
    iou: float
    look: str  # what the box looks like: one of the texts above
    scale: tuple[float, float]  # of the mask relative to the box, in x and y, if it is _SCALED
    warned: bool

    def text(self) -> str:
        x1, y1, x2, y2 = (f"{value:g}" for value in self.extent)
        return (
            f"bbox {list(self.bbox)} does not fit its segmentation, which spans x {x1} to {x2} and y {y1} to "
            f"{y2} (IoU {self.iou:.2f})"
        )


class BoxAgreement:
    """Collects the boxes of an annotation file one by one, and judges them together at the end."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._misfits: list[_Misfit] = []
        self._with_mask = self._without_mask = 0
        self._maskless: list[tuple[int, int]] = []  # image and annotation ids of the first without a mask
        self._boxes = self._normalised = self._bare = self._like_corners = self._beyond = 0
        self._outside = 0  # boxes whose centre is outside their image
        self._example_outside = ""
        self._reach = 0.0, 0.0  # the largest share of an image's width and height within which a box ends

    def add(
        self,
        *,
        image_id: int,
        annotation_id: int,
        bbox: Sequence[float],
        segmentation: Segmentation | None,
        size: Size,
        warned: bool,
    ) -> None:
        """Adds an object that is not a crowd.

        ``bbox`` is as in the file, ``size`` the image's; an object that is ``warned`` about gets no warning
        of its own here.
        """
        x, y, width, height = bbox
        if width > 0 and height > 0:
            self._boxes += 1
            self._count_place(image_id, annotation_id, bbox, size)
            if width <= 1 and height <= 1:
                self._normalised += 0 <= x <= 1 and 0 <= y <= 1 and min(size) >= _SMALLEST_SIDE
        extent = None if segmentation is None else mask_extent(segmentation)
        if extent is None:
            self._count_corners(bbox, size)
            if not warned:
                self._without_mask += 1
                if len(self._maskless) <= _LISTED:
                    self._maskless.append((image_id, annotation_id))
            return
        self._with_mask += 1
        x1, y1, x2, y2 = extent
        box = float(x), float(y), float(x + width), float(y + height)
        offsets = abs(box[0] - x1), abs(box[1] - y1), abs(box[2] - x2), abs(box[3] - y2)
        if max(offsets) <= _LARGEST_OFFSET:
            return
        # Both clipped, too: a box may end at the image's edge and its polygon beyond it.
        iou = max(_iou(box, extent), _iou(_clip(box, size), _clip(extent, size)))
        if iou < _SMALLEST_IOU:
            look, scale = _recognise(bbox, extent, size)
            self._misfits.append(_Misfit(image_id, annotation_id, bbox, extent, iou, look, scale, warned))

    def _count_place(self, image_id: int, annotation_id: int, bbox: Sequence[float], size: Size) -> None:
        """Counts boxes with the centre outside their image, and finds how far all boxes reach."""
        x, y, width, height = bbox
        if not (0 <= x + width / 2 <= size[1] and 0 <= y + height / 2 <= size[0]):
            self._outside += 1
            self._example_outside = self._example_outside or (
                f"Annotation {annotation_id} of image {image_id}: bbox {list(bbox)} in an image of "
                f"{size[1]} x {size[0]} (width x height)"
            )
        self._reach = max(self._reach[0], (x + width) / size[1]), max(self._reach[1], (y + height) / size[0])

    def _count_corners(self, bbox: Sequence[float], size: Size) -> None:
        """Counts, of the boxes without masks, those that could be corners and those that cannot be sides."""
        x, y, width, height = bbox
        if width > 0 and height > 0:
            self._bare += 1
            self._beyond += x + width > 1.05 * size[1] or y + height > 1.05 * size[0]
            self._like_corners += (
                0 <= x < width <= size[1] + _LARGEST_OFFSET and 0 <= y < height <= size[0] + _LARGEST_OFFSET
            )

    def judge(self) -> tuple[list[Finding], set[int]]:
        """The findings, and the ids of the annotations that they say are left out.

        Misfits are warnings up to a share of 10 %; more are one error for the file, and left out. A box that
        contains its mask but is much larger is a warning in any case: it may be that of the whole object, and
        the mask that of its visible part.

        Raises ValueError if most of the boxes do not fit or are in another format, as the rest cannot be
        trusted then.
        """
        self._raise_format()
        misfits = [misfit for misfit in self._misfits if misfit.look != _LARGER]
        findings, left_out = [], set()
        if len(misfits) >= _FEWEST and len(misfits) > _LARGEST_SHARE * self._with_mask:
            text = self._describe(misfits)
            if len(misfits) > self._with_mask / 2:
                raise ValueError(f"{self._where}: {text}")
            findings.append(Finding(self._where, None, None, text))
            left_out = {misfit.annotation_id for misfit in misfits}
            misfits = []
        for misfit in (misfit for misfit in misfits if not misfit.warned):
            rule = f"{misfit.text()}: it looks {misfit.look}; kept as it is"
            findings.append(Finding(self._where, misfit.image_id, misfit.annotation_id, rule, True))
        larger = [misfit for misfit in self._misfits if misfit.look == _LARGER and not misfit.warned]
        findings += self._warnings(
            [(misfit.image_id, misfit.annotation_id) for misfit in larger],
            [f"{misfit.text()}: it is {_LARGER}; kept as it is" for misfit in larger],
            f"bbox is {_LARGER} in {len(larger)} of {self._with_mask} annotations; kept as they are",
        )
        if self._with_mask:
            count = self._without_mask
            findings += self._warnings(
                self._maskless,
                ["has no segmentation, while others have; only its box is trained on"] * len(self._maskless),
                f"{count} of {count + self._with_mask} objects have no segmentation; only their boxes are "
                "trained on",
            )
        return findings + self._judge_places(), left_out

    def _judge_places(self) -> list[Finding]:
        """Warnings about boxes that do not fit the images. Raises ValueError if most of them do not."""
        rules = []
        if self._outside >= _FEWEST and self._outside > _LARGEST_SHARE * self._boxes:
            rule = (
                f"bbox has its centre outside the image in {self._outside} of {self._boxes} annotations; "
                f"they look as if made for images of another size. {self._example_outside}"
            )
            if self._outside > self._boxes / 2:
                raise ValueError(f"{self._where}: {rule}")
            rules.append(rule)
        if self._boxes >= _MANY and max(self._reach) < _SMALLEST_REACH:
            x, y = (f"{100 * share:.0f} %" for share in self._reach)
            rules.append(
                f"all {self._boxes} boxes end within the first {x} of the width and {y} of the height of "
                "their images; they look as if made for smaller images, or given in percent"
            )
        return [Finding(self._where, None, None, rule, True) for rule in rules]

    def _raise_format(self) -> None:
        """Raises ValueError if most boxes are normalised or corners, as can be told even without masks."""
        look = ""
        if self._boxes >= _FEWEST and self._normalised > self._boxes / 2:
            look = f"{_NORMALISED}: {self._normalised} of {self._boxes} lie within the first pixel"
        elif (
            self._bare >= _FEWEST
            and self._like_corners == self._bare
            and self._beyond > _LARGEST_SHARE * self._bare
        ):
            look = f"{_CORNERS}: {self._beyond} of {self._bare} would end outside their image"
        if look:
            raise ValueError(f"{self._where}: bbox looks {look}")

    def _describe(self, misfits: list[_Misfit]) -> str:
        """What is wrong with the boxes of a file, with counts and an example."""
        looks = Counter(misfit.look for misfit in misfits).most_common()
        look, count = looks[0]
        details = ""
        if look == _SCALED:
            scales = [misfit.scale for misfit in misfits if misfit.look == _SCALED]
            x, y = (f"{value:.3g}" for value in np.median(scales, axis=0))
            details = f" (the segmentation is {x} times as wide and {y} times as high; medians)"
        example = next(misfit for misfit in misfits if misfit.look == look)
        others = "".join(f"; {number} look {other}" for other, number in looks[1:])
        return (
            f"bbox does not fit the segmentation in {len(misfits)} of {self._with_mask} annotations: {count} "
            f"look {look}{details}{others}. Annotation {example.annotation_id} of image {example.image_id}: "
            f"{example.text()}"
        )

    def _warnings(
        self, places: Sequence[tuple[int, int]], rules: Sequence[str], together: str
    ) -> list[Finding]:
        """A warning for each place, or a single one, ``together``, if they are many."""
        if len(places) > _LISTED:
            image_id, annotation_id = places[0]
            rule = f"{together}; the first is annotation {annotation_id} of image {image_id}"
            return [Finding(self._where, None, None, rule, True)]
        return [Finding(self._where, *place, rule, True) for place, rule in zip(places, rules, strict=True)]


def mask_extent(segmentation: Segmentation) -> Box | None:
    """The smallest box around a mask, ``x1 y1 x2 y2`` in pixels; None if the mask is empty."""
    if isinstance(segmentation, Rle):
        return _rle_extent(segmentation)
    xs: list[float] = []  # as lists, because polygons are so short that NumPy takes twice the time
    ys: list[float] = []
    for polygon in segmentation:
        x, y = polygon.T.tolist()
        xs += x
        ys += y
    return min(xs), min(ys), max(xs), max(ys)


def _rle_extent(rle: Rle) -> Box | None:
    """The extent from the runs, without decoding them; a run of ones goes down the columns."""
    ends = np.cumsum(rle.counts)
    first, last = (ends - rle.counts)[1::2], ends[1::2] - 1  # pixels of each run of ones
    some = last >= first
    if not some.any():
        return None
    left, top = np.divmod(first[some], rle.height)
    right, bottom = np.divmod(last[some], rle.height)
    top, bottom = np.where(right > left, 0, top), np.where(right > left, rle.height - 1, bottom)
    return float(left.min()), float(top.min()), float(right.max() + 1), float(bottom.max() + 1)


def _recognise(bbox: Sequence[float], extent: Box, size: Size) -> tuple[str, tuple[float, float]]:
    """What a box that does not fit its mask looks like, and its scale if that is the difference."""
    x, y, width, height = map(float, bbox)
    scale = _scale(bbox, extent)
    readings = {
        _CORNERS: (x, y, width, height),
        _CENTRED: (x - width / 2, y - height / 2, x + width / 2, y + height / 2),
        _TRANSPOSED: (y, x, y + height, x + width),
        _UPSIDE_DOWN: (x, size[0] - y - height, x + width, size[0] - y),
        _SCALED: (x * scale[0], y * scale[1], (x + width) * scale[0], (y + height) * scale[1]),
    }
    if not (width > 0 and height > 0):
        return _EMPTY, scale
    if min(bbox) >= 0 and max(bbox) <= 1:
        return _NORMALISED, scale
    if min(extent) >= 0 and max(extent) <= 1:
        return _MASK_NORMALISED, scale
    for look, box in readings.items():
        if _iou(box, extent) >= _RECOGNISED:
            return look, scale
    overlap = _intersection((x, y, x + width, y + height), extent)
    if overlap > 0 and overlap >= _INSIDE * _area(extent):
        return _LARGER, scale
    if overlap > 0 and overlap >= _INSIDE * width * height:
        return _SMALLER, scale
    return _ELSEWHERE, scale


def _scale(bbox: Sequence[float], extent: Box) -> tuple[float, float]:
    """The factors in x and y from the centre of a box to that of a mask; 0 without."""
    x, y, width, height = bbox
    x_sum, y_sum = 2 * x + width, 2 * y + height
    return (
        (extent[0] + extent[2]) / x_sum if x_sum > 0 else 0.0,
        (extent[1] + extent[3]) / y_sum if y_sum > 0 else 0.0,
    )


def _clip(box: Box, size: Size) -> Box:
    height, width = size
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _intersection(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def _iou(a: Box, b: Box) -> float:
    overlap = _intersection(a, b)
    union = _area(a) + _area(b) - overlap
    return overlap / union if union > 0 else 0.0
