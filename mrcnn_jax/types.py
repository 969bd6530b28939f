"""The pytrees shared by all packages, padded to fixed sizes.

Shapes: B images, H x W pixels of a canvas or cells of a map, C channels, G ground-truth objects, P proposals,
D detections, K keypoints, S cells of a box-frame mask, M cells of a predicted mask.

Boxes are float32 ``x1 y1 x2 y2`` in pixels of the resized, padded image, without "+1". Label 0 is background,
the categories have labels from 1. Only ``valid`` says which rows are real; the content of other rows never
changes a result.
"""

import jax
from flax import struct


@struct.dataclass
class GroundTruth:
    """The annotated objects of a batch.

    A box-frame mask is an S x S grid over a box in ``mask_boxes``, row 0 at its top; that is the object's box
    before the image was cropped. A keypoint is ``x y visibility``, with COCO's visibility 0 (absent), 1
    (hidden) or 2 (visible).
    """

    boxes: jax.Array  # [B G 4] float32
    labels: jax.Array  # [B G] int32, 0 in padding and for a crowd of objects that share its row
    crowd: jax.Array  # [B G] bool: a group, neither a target nor a negative
    valid: jax.Array  # [B G] bool
    masks: jax.Array | None = None  # [B G S S] uint8, 0 or 1; all zero: no mask
    mask_boxes: jax.Array | None = None  # [B G 4] float32, with masks
    keypoints: jax.Array | None = None  # [B G K 3] float32


@struct.dataclass
class Proposals:
    """Candidate boxes, of the region proposal network or from a file, best first."""

    boxes: jax.Array  # [B P 4] float32, clipped to the image
    scores: jax.Array  # [B P] float32 objectness logits
    valid: jax.Array  # [B P] bool


@struct.dataclass
class Batch:
    """One batch of the data pipeline."""

    images: jax.Array  # [B H W C] RGB, 0 to 255, or others; uint8 or float32, zero beyond each image's size
    image_sizes: jax.Array  # [B 2] int32: height and width before padding
    ids: jax.Array | None  # [B] int64 COCO image ids, on the host only
    gt: GroundTruth
    proposals: Proposals | None = None  # from a file, for a model without an RPN


@struct.dataclass
class Features:
    """The feature maps of a batch, by level: ``"p2"`` to ``"p6"`` of a pyramid, else ``"c4"`` or ``"c5"``."""

    maps: dict[str, jax.Array]  # [B H W C] each, zero beyond an image's cells
    sizes: dict[str, jax.Array]  # [B 2] int32: rows and columns of a map that the image covers


@struct.dataclass
class Detections:
    """The detected objects, best first, in pixels of the resized image."""

    boxes: jax.Array  # [B D 4] float32
    scores: jax.Array  # [B D] float32, 0 to 1
    labels: jax.Array  # [B D] int32, 1 to the number of categories
    valid: jax.Array  # [B D] bool
    masks: jax.Array | None = None  # [B D M M] float32 probabilities in the frame of the box
    keypoints: jax.Array | None = None  # [B D K 3] float32: x, y, score (a logit)
