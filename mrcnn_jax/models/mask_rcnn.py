"""Mask R-CNN (arXiv 1703.06870): from pixels to features, proposals, boxes, masks and keypoints.

``predict`` (inference) and ``compute_losses`` (training) both call these stages, in this order.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.box_head import BoxHead
from mrcnn_jax.models.fpn import FPN
from mrcnn_jax.models.keypoint_head import KeypointHead
from mrcnn_jax.models.mask_head import MaskHead
from mrcnn_jax.models.resnet import ResNet
from mrcnn_jax.models.rpn import RPNHead, propose
from mrcnn_jax.ops.anchors import make_anchors
from mrcnn_jax.ops.roi_align import multilevel_roi_align
from mrcnn_jax.sharding import map_images
from mrcnn_jax.types import Proposals

STRIDES = (4, 8, 16, 32, 64)
POOLED_LEVELS = ("p2", "p3", "p4", "p5")

Features = dict[str, Float[Array, "b _ _ _"]]


class MaskRCNN(nnx.Module):
    """A Mask R-CNN with an FPN backbone; the mask and keypoint heads are there if the config has them.

    Args:
        num_classes: categories, the background not counted.
        num_keypoints: keypoints of an object; read only if ``config.keypoint``.
    """

    def __init__(
        self, config: ModelConfig, *, num_classes: int, num_keypoints: int = 0, rngs: nnx.Rngs
    ) -> None:
        dtype = jnp.dtype(config.dtype)
        channels = config.fpn_channels
        self.config = config
        self.backbone = ResNet(
            depth=config.backbone_depth,
            width=config.backbone_width,
            norm=config.backbone_norm,
            epsilon=config.backbone_norm_epsilon,
            stride_in_1x1=config.backbone_stride_in_1x1,
            frozen_stages=config.backbone_frozen_stages,
            dtype=dtype,
            rngs=rngs,
        )
        self.fpn = FPN(self.backbone.out_channels, channels, dtype=dtype, rngs=rngs)
        self.rpn = RPNHead(channels, len(config.anchor_ratios), dtype=dtype, rngs=rngs)
        self.box_head = BoxHead(
            channels,
            config.box_channels,
            pool_size=config.box_pool_size,
            num_classes=num_classes,
            dtype=dtype,
            rngs=rngs,
        )
        self.mask_head = (
            MaskHead(
                channels,
                config.mask_channels,
                num_convs=config.mask_convs,
                num_classes=num_classes,
                dtype=dtype,
                rngs=rngs,
            )
            if config.mask
            else None
        )
        self.keypoint_head = (
            KeypointHead(
                channels,
                config.keypoint_channels,
                num_convs=config.keypoint_convs,
                num_keypoints=num_keypoints,
                dtype=dtype,
                rngs=rngs,
            )
            if config.keypoint
            else None
        )

    def features(self, images: Array, image_sizes: Int[Array, "b 2"]) -> Features:
        """The pyramid ``p2`` to ``p6`` of RGB images 0 to 255, padded to a canvas."""
        return self.fpn(self.backbone(normalize(images, image_sizes, self.config)))

    def anchors(self, canvas: tuple[int, int]) -> dict[str, Float[Array, "_ 4"]]:
        """The anchors of every level, for images padded to ``canvas`` (height, width)."""
        return make_anchors(
            canvas, sizes=self.config.anchor_sizes, ratios=self.config.anchor_ratios, strides=STRIDES
        )

    def propose(
        self,
        rpn_outputs: dict[str, tuple[Array, Array]],
        image_sizes: Int[Array, "b 2"],
        canvas: tuple[int, int],
        *,
        pre_nms: int,
        post_nms: int,
        nms_iou: float,
    ) -> Proposals:
        """The proposals of every image from what the RPN head says of its anchors."""

        def propose_one(outputs: dict[str, tuple[Array, Array]], image_size: Array) -> Proposals:
            return propose(
                outputs,
                self.anchors(canvas),
                image_size,
                pre_nms=pre_nms,
                post_nms=post_nms,
                nms_iou=nms_iou,
            )

        return map_images(propose_one, rpn_outputs, image_sizes)

    def box_outputs(
        self, features: Features, boxes: Float[Array, "b r 4"]
    ) -> tuple[Float[Array, "b r l"], Float[Array, "b r k 4"]]:
        """Class logits and box deltas of every region."""
        logits, deltas = self.box_head(self._pool(features, boxes, self.config.box_pool_size))
        return _unflatten(logits, boxes), _unflatten(deltas, boxes)

    def mask_logits(self, features: Features, boxes: Float[Array, "b r 4"]) -> Float[Array, "b r m m k"]:
        """Mask logits of every region and category. Raises ValueError if the model has no mask head."""
        if self.mask_head is None:
            raise ValueError("this model has no mask head: model.mask is False in its config")
        return _unflatten(self.mask_head(self._pool(features, boxes, self.config.mask_pool_size)), boxes)

    def keypoint_logits(self, features: Features, boxes: Float[Array, "b r 4"]) -> Float[Array, "b r m m k"]:
        """Logits over the cells of every region, by keypoint. Raises ValueError without a keypoint head."""
        if self.keypoint_head is None:
            raise ValueError("this model has no keypoint head: model.keypoint is False in its config")
        regions = self._pool(features, boxes, self.config.keypoint_pool_size)
        return _unflatten(self.keypoint_head(regions), boxes)

    def _pool(self, features: Features, boxes: Array, size: int) -> Float[Array, "n p p c"]:
        """RoIAlign (paper 3) of the boxes of all images, flattened to one row of regions."""

        def pool_one(features_of_image: dict[str, Array], boxes_of_image: Array) -> Array:
            return multilevel_roi_align(
                features_of_image,
                boxes_of_image,
                output_size=size,
                sampling_ratio=self.config.roi_sampling_ratio,
                aligned=self.config.roi_aligned,
                canonical_size=self.config.roi_canonical_size,
            )

        regions = jax.vmap(pool_one)({level: features[level] for level in POOLED_LEVELS}, boxes)
        return regions.reshape(-1, *regions.shape[2:])


def normalize(images: Array, image_sizes: Int[Array, "b 2"], config: ModelConfig) -> Float[Array, "b h w 3"]:
    """Images as the backbone wants them, zero beyond each image's size whatever the padding holds."""
    pixels = images.astype(jnp.float32)
    if config.pixel_order == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels - jnp.array(config.pixel_mean)) / jnp.array(config.pixel_std)
    _, height, width, _ = images.shape
    rows = jnp.arange(height) < image_sizes[:, :1]  # [B H]
    columns = jnp.arange(width) < image_sizes[:, 1:]  # [B W]
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], pixels, 0.0)


def _unflatten(x: Array, boxes: Array) -> Array:
    return x.reshape(*boxes.shape[:2], *x.shape[1:])
