"""The region proposal network (Faster R-CNN 3.1): a head applied to every level, and its proposals.

Naming: ``objectness`` are logits, ``deltas`` the encoded offsets from anchors to boxes; A is the
number of anchors, of one level or of all levels in turn; a level's are ordered by row, column, ratio. C is
the number of cells, each with A / C anchors, and D the number of a cell's deltas: 4 for each of its anchors.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mrcnn_jax.distributed.spatial import all_rows
from mrcnn_jax.models.canvas import image_mask, mask_out
from mrcnn_jax.models.convs import Conv
from mrcnn_jax.ops.boxes import BoxWeights, clip_boxes, decode_boxes, is_nonempty
from mrcnn_jax.ops.nms import nms_levels
from mrcnn_jax.ops.relu import relu
from mrcnn_jax.runtime.barriers import tpu_barrier
from mrcnn_jax.types import Features, Proposals

_normal = nnx.initializers.normal(0.01)


@struct.dataclass
class Anchors:
    """The anchors of a level.

    Anchors whose cell lies beyond the image, on a larger canvas, are neither proposed nor trained on, so that
    the canvas makes no difference.
    """

    boxes: Array  # [B A 4], or [A 4] for one image
    in_image: Array  # [B A] or [A] bool: whether the anchor's cell belongs to the image


class RPNHead(nnx.Module):
    """3x3 convolutions, then 1x1 convolutions that give each anchor's objectness and box deltas."""

    def __init__(
        self, channels: int, num_anchors: int, *, num_convs: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        conv = partial(Conv, kernel_init=_normal, dtype=dtype, rngs=rngs)
        self.convs = nnx.List([conv(channels, channels, 3) for _ in range(num_convs)])
        self.cls_logits = conv(channels, num_anchors, 1)
        self.bbox_pred = conv(channels, num_anchors * 4, 1)

    @jax.named_scope("rpn")
    def __call__(self, features: Features) -> dict[str, tuple[Float[Array, "b _"], Float[Array, "b _ d"]]]:
        """Objectness ``[B A]`` and deltas ``[B C D]`` of every level, float32; see :func:`take_deltas`."""
        outputs = {}
        for level, x in features.maps.items():
            mask = image_mask(x.shape[1:3], features.sizes[level])
            for conv in self.convs:
                x = relu(mask_out(conv(x), mask))
            objectness = all_rows(self.cls_logits(x).astype(jnp.float32))
            deltas = all_rows(self.bbox_pred(x).astype(jnp.float32))
            cells = x.shape[1] * x.shape[2]
            outputs[level] = objectness.reshape(len(x), -1), deltas.reshape(len(x), cells, -1)
        return outputs


def take_deltas(deltas: Float[Array, "c d"], index: Int[Array, " n"]) -> Float[Array, "n 4"]:
    """The deltas of the anchors at ``index``, from those of every cell.

    Whole cells are gathered, because all deltas as ``[A 4]`` would be a copy of the map, padded on a TPU.
    """
    per_cell = deltas.shape[1] // 4
    rows = deltas[index // per_cell].reshape(-1, per_cell, 4)
    chosen = (index % per_cell)[:, None] == jnp.arange(per_cell)
    return jnp.sum(jnp.where(chosen[:, :, None], rows, 0.0), axis=1)


def select_proposals(
    outputs: dict[str, tuple[Float[Array, " _"], Float[Array, "_ d"]]],
    anchors: dict[str, Anchors],
    image_size: Int[Array, "2"],
    *,
    pre_nms: int,
    post_nms: int,
    nms_iou: float,
    box_weights: BoxWeights,
    scale_limits: str = "above",
    smallest_side: float = 0.0,
) -> Proposals:
    """The proposals of one image: each level's best anchors after decoding, clipping and NMS.

    Args:
        outputs: objectness and deltas of one image, by level.
        image_size: height and width before padding; boxes are clipped to it.
        pre_nms: maximum number of boxes per level before suppression.
        post_nms: number of rows returned, over all levels; a box suppresses only boxes of its own level (as
            in Detectron2).
        box_weights: weights of the deltas; see ``encode_boxes``.
        scale_limits: of the deltas; see ``decode_boxes``.
        smallest_side: boxes with a side shorter than this, in pixels, are dropped; empty boxes always are.
    """
    boxes, scores, valid = [], [], []
    for level, (objectness, deltas) in outputs.items():
        # libtpu 0.0.42 aborts if it fuses what is before top_k with it: when training on one image.
        objectness = tpu_barrier(jnp.where(anchors[level].in_image, objectness, -jnp.inf))
        top_scores, index = jax.lax.top_k(objectness, min(pre_nms, len(objectness)))
        decoded = decode_boxes(
            take_deltas(deltas, index), anchors[level].boxes[index], box_weights, scale_limits=scale_limits
        )
        boxes.append(clip_boxes(decoded, image_size))
        scores.append(top_scores)
        valid.append(is_nonempty(boxes[-1], smallest_side) & jnp.isfinite(top_scores))
    index, found = nms_levels(boxes, scores, valid, iou_threshold=nms_iou, max_outputs=post_nms)
    proposals = Proposals(
        boxes=jnp.where(found[:, None], jnp.concatenate(boxes)[index], 0.0),
        scores=jnp.where(found, jnp.concatenate(scores)[index], -jnp.inf),
        valid=found,
    )
    return jax.lax.stop_gradient(proposals)
