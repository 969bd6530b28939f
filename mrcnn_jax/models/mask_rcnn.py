"""Mask R-CNN (arXiv 1703.06870): from pixels to features, proposals, boxes, masks and keypoints.

``inference/predict.py`` and ``training/objective.py`` read like the paper; they call the stages built here.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from mrcnn_jax.config import ModelConfig, TestConfig, TrainConfig
from mrcnn_jax.distributed.sharding import map_images
from mrcnn_jax.distributed.spatial import (
    collect_regions,
    copy_maps,
    flatten_regions,
    map_regions,
    share_regions,
    unflatten_regions,
)
from mrcnn_jax.models.backbone import make_backbone
from mrcnn_jax.models.box_head import BoxHead
from mrcnn_jax.models.canvas import cells, image_mask, map_mask, mask_out, padded_sizes
from mrcnn_jax.models.cascade import scale_gradient
from mrcnn_jax.models.keypoint_head import KeypointHead
from mrcnn_jax.models.mask_fc_head import MaskFCHead
from mrcnn_jax.models.mask_head import MaskHead, make_mask_head
from mrcnn_jax.models.pyramid import make_pyramid
from mrcnn_jax.models.resnet import apply_stage, make_stage, stage_channels
from mrcnn_jax.models.roi_pooling import pool_regions
from mrcnn_jax.models.rpn import Anchors, RPNHead, select_proposals
from mrcnn_jax.models.valid_regions import apply_to_valid
from mrcnn_jax.ops.anchors import anchor_cells, make_anchors
from mrcnn_jax.types import Features, Proposals


class MaskRCNN(nnx.Module):
    """Mask R-CNN, with mask and keypoint heads if the config asks for them.

    Without ``config.rpn`` it needs proposals made elsewhere (Fast R-CNN); without ``config.box`` it has no
    heads and makes proposals only.

    Args:
        num_classes: number of categories, not counting the background.
        num_keypoints: number of keypoints per object; used only if ``config.keypoint``.
    """

    def __init__(
        self, config: ModelConfig, *, num_classes: int, num_keypoints: int = 0, rngs: nnx.Rngs
    ) -> None:
        kwargs: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "rngs": rngs}
        self.config = config
        self.backbone = make_backbone(config, **kwargs)
        level, channels = list(self.backbone.channels.items())[-1]
        strides = {level: self.backbone.strides[level]}
        self.fpn = make_pyramid(config, self.backbone, **kwargs) if config.features == "fpn" else None
        if self.fpn is not None:
            channels, strides = config.fpn_channels, self.fpn.strides
        self.strides = strides
        num_anchors = self._sizes_per_level() * len(config.anchor_ratios)
        self.rpn = (
            RPNHead(channels, num_anchors, num_convs=config.rpn_convs, **kwargs) if config.rpn else None
        )

        # With features "c4" ResNet's last stage starts every head (paper figure 4 left).
        has_res5 = config.features == "c4" and config.box
        self.res5 = make_stage(config, 4, **kwargs) if has_res5 else None
        channels = channels if self.res5 is None else stage_channels(config, 4)
        stride = config.res5_stride if has_res5 else 1
        make_box_head = partial(
            BoxHead,
            channels,
            config.box_channels,
            pool_size=-(-config.box_pool_size // stride),
            num_convs=config.box_convs,
            norm=config.box_norm,
            num_fcs=config.box_fcs,
            num_classes=num_classes,
            agnostic=config.box_agnostic,
            **kwargs,
        )
        self.box_head = make_box_head() if config.box else None
        self.cascade_heads = nnx.List([make_box_head() for _ in config.box_cascade])
        make_head = partial(
            make_mask_head,
            config,
            channels,
            pool_size=-(-config.mask_pool_size // stride),
            num_classes=num_classes,
            **kwargs,
        )
        self.mask_head = make_head() if config.mask else None
        self.cascade_mask_heads = nnx.List([make_head() for _ in config.box_cascade if config.mask_cascade])
        self.keypoint_head = (
            KeypointHead(
                channels,
                config.keypoint_channels,
                num_convs=config.keypoint_convs,
                num_keypoints=num_keypoints,
                **kwargs,
            )
            if config.keypoint
            else None
        )

    def _sizes_per_level(self) -> int:
        return len(self.config.anchor_sizes) // len(self.strides)

    def features(
        self, images: Array, image_sizes: Int[Array, "b 2"], keys: Key[Array, " b"] | None = None
    ) -> Features:
        """Feature maps for the RPN and the heads, zero beyond each image; ``images`` are as read.

        In training, ``keys`` are for what the backbone does at random (``model.backbone_drop_path``).
        """
        padded = padded_sizes(image_sizes, self.config.padding_multiple)
        mask_at = partial(map_mask, images.shape[1:3], padded)
        with jax.named_scope("backbone"):
            maps = self.backbone(normalize(images, image_sizes, self.config), padded, keys)
        if self.fpn is not None:
            masks = {level: mask_at(stride) for level, stride in self.backbone.strides.items()}
            with jax.named_scope("fpn"):
                maps = self.fpn(maps, masks)
        return Features(
            maps={level: mask_out(maps[level], mask_at(stride)) for level, stride in self.strides.items()},
            sizes={level: cells(padded, stride) for level, stride in self.strides.items()},
        )

    def anchors(self, features: Features, image_sizes: Int[Array, "b 2"]) -> dict[str, Anchors]:
        """The anchors of every image, by level."""
        config = self.config
        padded = padded_sizes(image_sizes, config.padding_multiple)
        sizes_per_level = self._sizes_per_level()
        anchors = {}
        for number, (level, stride) in enumerate(self.strides.items()):
            grid, count = features.maps[level].shape[1:3], features.sizes[level]
            pitch = padded // count if config.anchor_stride == "image" else jnp.full_like(padded, stride)
            make = partial(
                make_anchors,
                grid,
                sizes=config.anchor_sizes[number * sizes_per_level :][:sizes_per_level],
                ratios=config.anchor_ratios,
                rounded=config.anchor_rounded,
            )
            boxes = jax.vmap(make)(pitch)
            row, column, _ = anchor_cells(grid, boxes.shape[1] // (grid[0] * grid[1]))
            in_image = (row < count[:, :1]) & (column < count[:, 1:])  # [A] < [B 1]
            anchors[level] = Anchors(boxes=boxes, in_image=in_image)
        return anchors

    def rpn_outputs(self, features: Features) -> dict[str, tuple[Array, Array]]:
        """The RPN's objectness and deltas of every level; raises ValueError if the model has no RPN."""
        if self.rpn is None:
            raise ValueError("this model has no RPN: model.rpn is False in its config")
        return self.rpn(features)

    @jax.named_scope("proposals")
    def propose(
        self,
        rpn_outputs: dict[str, tuple[Array, Array]],
        anchors: dict[str, Anchors],
        image_sizes: Int[Array, "b 2"],
        config: TrainConfig | TestConfig,
    ) -> Proposals:
        """Every image's proposals from the RPN's outputs; ``config`` sets how many."""
        select = partial(
            select_proposals,
            pre_nms=config.rpn_pre_nms,
            post_nms=config.rpn_post_nms,
            nms_iou=config.rpn_nms_iou,
            box_weights=self.config.rpn_box_weights,
            scale_limits=self.config.box_scale_limits,
            smallest_side=self.config.rpn_smallest_side,
        )
        return map_images(select, rpn_outputs, anchors, image_sizes)

    def region_features(self, features: Features) -> Features:
        """The maps that regions are pooled from, for the methods below.

        Where several devices share an image, this is the one time that its maps are gathered.
        """
        levels = self.strides if self.fpn is None else self.fpn.pooled_levels
        return Features(
            maps=copy_maps({level: features.maps[level] for level in levels}),
            sizes={level: features.sizes[level] for level in levels},
        )

    def box_outputs(
        self,
        features: Features,
        boxes: Float[Array, "b r 4"],
        valid: Bool[Array, "b r"] | None = None,
        *,
        stage: int = 0,
    ) -> tuple[Float[Array, "b r l"], Float[Array, "b r k 4"]]:
        """Class logits and box deltas of every region. Batch norm uses only the ``valid`` regions.

        A cascade (``model.box_cascade``) has a head for each ``stage``, from 0. Raises ValueError if there is
        no box head.
        """
        if self.box_head is None:
            raise ValueError("this model has no box head: model.box is False in its config")
        heads = [self.box_head, *self.cascade_heads]
        images, count = boxes.shape[:2]
        boxes, valid = share_regions((boxes, valid))
        regions = flatten_regions(self._pool(features, boxes, self.config.box_pool_size))
        with jax.named_scope("box_head"):
            regions = _stage5(self.res5, regions)
            if len(heads) > 1:
                regions = scale_gradient(regions, 1 / len(heads))
            outputs = heads[stage](regions, None if valid is None else flatten_regions(valid))
            logits, deltas = (unflatten_regions(rows, images) for rows in outputs)
        return collect_regions((logits, deltas), count)

    def mask_logits(
        self,
        features: Features,
        boxes: Float[Array, "b r 4"],
        labels: Int[Array, "b r"],
        valid: Bool[Array, "b r"],
        *,
        stage: int = 0,
    ) -> Float[Array, "b r m m"]:
        """Mask logits of every region for its label; rows that are not ``valid`` are undefined.

        With ``mask_loss`` "softmax" these are margins: the label's logit minus the largest of the other
        classes'. With ``model.mask_cascade`` there is a head for each ``stage``, from 0. Raises ValueError if
        the model has no mask head.
        """
        heads = self._mask_heads()[stage : stage + 1]
        return self._mask_outputs(operator.call, heads, features, boxes, labels, valid)[0]

    def mask_probabilities(
        self,
        features: Features,
        boxes: Float[Array, "b r 4"],
        labels: Int[Array, "b r"],
        valid: Bool[Array, "b r"],
    ) -> Float[Array, "b r m m"]:
        """Mask probabilities of every region for its label; rows that are not ``valid`` are undefined.

        With ``model.mask_cascade`` they are the means of the heads'. Raises ValueError if the model has no
        mask head.
        """
        outputs = self._mask_outputs(operator.call, self._mask_heads(), features, boxes, labels, valid)
        first, *further = map(jax.nn.sigmoid, outputs)
        return sum(further, first) / len(outputs) if further else first

    def mask_log_probabilities(
        self,
        features: Features,
        boxes: Float[Array, "b r 4"],
        labels: Int[Array, "b r"],
        valid: Bool[Array, "b r"],
    ) -> Float[Array, "b r m m 2"]:
        """Log-probabilities of every region's label and of the background, in each cell of its mask.

        Rows that are not ``valid`` are undefined. Raises ValueError unless the model has a mask head with
        ``mask_loss`` "softmax".
        """
        if self.config.mask_loss != "softmax":
            raise ValueError(
                "this model's masks are sigmoids: model.mask_loss is not 'softmax' in its config"
            )
        return self._mask_outputs(_log_probabilities, self._mask_heads(), features, boxes, labels, valid)[0]

    def _mask_heads(self) -> list[Any]:
        if self.mask_head is None:
            raise ValueError("this model has no mask head: model.mask is False in its config")
        return [self.mask_head, *self.cascade_mask_heads]

    def _mask_outputs(
        self,
        method: Callable[..., Array],
        heads: list[Any],
        features: Features,
        boxes: Array,
        labels: Array,
        valid: Array,
    ) -> list[Array]:
        """What ``method`` of each of the ``heads`` makes of the regions."""
        if self.config.mask_agnostic:
            labels = jnp.minimum(labels, 1)  # the head's one category
        count = boxes.shape[1]
        boxes, labels, valid = share_regions((boxes, labels, valid))
        regions = self._pool(features, boxes, self.config.mask_pool_size)
        with jax.named_scope("mask_head"):
            outputs = [self._apply_to_valid(head, valid, regions, labels, method=method) for head in heads]
        return [collect_regions(output, count) for output in outputs]

    def keypoint_logits(
        self, features: Features, boxes: Float[Array, "b r 4"], valid: Bool[Array, "b r"]
    ) -> Float[Array, "b r m m k"]:
        """Keypoint logits over the cells of every region; rows that are not ``valid`` are undefined.

        Raises ValueError if the model has no keypoint head.
        """
        if self.keypoint_head is None:
            raise ValueError("this model has no keypoint head: model.keypoint is False in its config")
        count = boxes.shape[1]
        boxes, valid = share_regions((boxes, valid))
        regions = self._pool(features, boxes, self.config.keypoint_pool_size)
        with jax.named_scope("keypoint_head"):
            logits = self._apply_to_valid(self.keypoint_head, valid, regions)
        return collect_regions(logits, count)

    def _apply_to_valid(
        self,
        head: Any,
        valid: Array,
        regions: Array,
        *labels: Array,
        method: Callable[..., Array] = operator.call,
    ) -> Array:
        """A ``method`` of the mask or keypoint head on the valid regions; the mask head also takes labels."""
        if any(nnx.state(module, nnx.BatchStat) for module in (head, self.res5) if module is not None):
            # All regions at once, because batch norm makes each depend on the others.
            rows = _stage5(self.res5, flatten_regions(regions))
            outputs = method(head, rows, *map(flatten_regions, labels), flatten_regions(valid))
            return unflatten_regions(outputs, len(valid))
        graphdef, weights = nnx.split((head, self.res5))

        def apply(weights: Any, regions: Array, *labels: Array) -> Array:
            head, res5 = nnx.merge(graphdef, weights)
            return method(head, _stage5(res5, regions), *labels)

        return apply_to_valid(apply, weights, valid, regions, *labels)

    @jax.named_scope("roi_pooling")
    def _pool(self, features: Features, boxes: Array, size: int) -> Float[Array, "b r p p c"]:
        """The features of every image's boxes: RoIAlign (paper 3), unless the config says otherwise."""
        levels = self.strides if self.fpn is None else self.fpn.pooled_levels
        strides = {level: self.strides[level] for level in levels}

        def pool_image(sizes: dict[str, Array], maps: dict[str, Array], boxes: Array) -> Array:
            return pool_regions(maps, sizes, boxes, strides=strides, output_size=size, config=self.config)

        return map_regions(pool_image, features.sizes, features.maps, boxes)


def normalize(images: Array, image_sizes: Int[Array, "b 2"], config: ModelConfig) -> Float[Array, "b h w n"]:
    """Images normalised for the backbone, zero beyond each image's size whatever the padding holds.

    With the order "bgr" the first and the third channel are exchanged; further ones stay.
    """
    pixels = images.astype(jnp.float32)
    if config.pixel_order == "bgr":
        reversed_, further = pixels[..., 2::-1], pixels[..., 3:]
        pixels = jnp.concatenate([reversed_, further], axis=-1) if further.shape[-1] else reversed_
    pixels = (pixels - jnp.array(config.pixel_mean)) / jnp.array(config.pixel_std)
    return jnp.where(image_mask(images.shape[1:3], image_sizes), pixels, 0.0)


def _log_probabilities(head: MaskHead | MaskFCHead, *inputs: Array) -> Float[Array, "n m m 2"]:
    return head.log_probabilities(*inputs)


def _stage5(res5: Sequence[Any] | None, regions: Float[Array, "n p p c"]) -> Float[Array, "n p2 p2 d"]:
    """The regions after stage 5 with features "c4", else the regions themselves."""
    return regions if res5 is None else apply_stage(res5, regions)
