"""Compares keypoints with the boxes of their objects, and recognises normalised ones.

Keypoints at another scale would train to nothing, like masks outside their boxes (see ``box_agreement``).
"""

import numpy as np

from mrcnn_jax.data.coco_fields import Box
from mrcnn_jax.data.findings import Finding

# A keypoint fits if it lies in the box, enlarged by this share of its sides and some pixels for tiny ones.
_MARGIN = 0.5
_PIXELS = 2.0
_FEWEST = 3  # objects from which on a file is judged as a whole
_LARGEST_SHARE = 0.1  # of objects whose keypoints do not fit, as slips of the annotator


class KeypointAgreement:
    """Collects the objects with keypoints of an annotation file, and judges them together at the end."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._objects = self._apart = self._normalised = 0
        self._example = ""

    def add(self, *, image_id: int, annotation_id: int, box: Box, keypoints: np.ndarray) -> None:
        """Adds an object with its ``keypoints`` ``[K 3]``; it fits if any of the labelled ones does."""
        points = keypoints[keypoints[:, 2] > 0, :2]
        if not len(points):
            return
        self._objects += 1
        corners = np.array(box, np.float64).reshape(2, 2)
        margin = _MARGIN * (corners[1] - corners[0]) + _PIXELS
        if ((points >= corners[0] - margin) & (points <= corners[1] + margin)).all(axis=1).any():
            return
        self._apart += 1
        self._normalised += bool((points >= 0).all() and (points <= 1).all())
        x, y = (f"{value:g}" for value in points[0].tolist())
        x1, y1, x2, y2 = (f"{value:g}" for value in box)
        self._example = self._example or (
            f"Annotation {annotation_id} of image {image_id} has one at x {x}, y {y}; its box spans x {x1} "
            f"to {x2} and y {y1} to {y2}"
        )

    def judge(self, *, strict: bool) -> list[Finding]:
        """A warning if the keypoints of more than 10 % of the objects are far outside their boxes.

        Raises ValueError if those of more than half are, and ``strict``.
        """
        if self._apart < _FEWEST or self._apart <= _LARGEST_SHARE * self._objects:
            return []
        normalised = self._normalised > self._apart / 2
        look = ": they look normalised to between 0 and 1, in place of pixels" if normalised else ""
        rule = (
            f"keypoints lie outside of the box in {self._apart} of {self._objects} annotations{look}. "
            f"{self._example}"
        )
        if strict and self._apart > self._objects / 2:
            raise ValueError(f"{self._where}: {rule}")
        return [Finding(self._where, None, None, rule, True)]
