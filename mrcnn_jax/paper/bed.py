"""The paper's models at a scale that two CPU cores carry: drawn shapes, and narrow layers."""

import dataclasses
import os
from pathlib import Path

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.paper.full_scale import RPN_ALONE, proposals_file

_TRAIN, _VAL, _SIZE = 3000, 400, 128  # pictures, and their side in pixels
_RPN_STEPS, _STEPS = 600, 400
_DEPTHS = {50: 18, 101: 34}
_ANCHORS = (12.0, 24.0, 48.0, 96.0, 192.0)  # pixels


def shrink(config: Config, data: Path, *, seed: int) -> Config:
    """The small counterpart of a config of the paper, to train on the shapes in ``data``.

    Whatever a row may vary is kept: the kind of features, the pooling of regions, which heads there are and
    how they are built.
    """
    model = config.model
    return Config(
        model=dataclasses.replace(
            ModelConfig(),
            backbone_depth=_DEPTHS[model.backbone_depth],
            backbone_width=24,
            backbone_norm="batch",
            backbone_frozen_stages=0,
            backbone_recomputed_stages=0,
            fpn_channels=64,
            fpn_norm="batch",
            anchor_sizes=_ANCHORS,
            roi_canonical_size=96.0,
            roi_aligned=model.roi_aligned,
            roi_sampling_ratio=model.roi_sampling_ratio,
            roi_pooling=model.roi_pooling,
            features=model.features,
            res5_stride=model.res5_stride,
            non_local=model.non_local,
            box_pool_size=model.box_pool_size,
            box_fcs=model.box_fcs,
            box_channels=256,
            mask=model.mask,
            mask_pool_size=model.mask_pool_size,
            mask_convs=min(model.mask_convs, 2),
            mask_channels=32,
            mask_fcs=model.mask_fcs,
            mask_fc_channels=256,
            mask_loss=model.mask_loss,
            mask_agnostic=model.mask_agnostic,
            keypoint=model.keypoint,
            keypoint_pool_size=7,
            keypoint_convs=4,
            keypoint_channels=64,
        ),
        data=DataConfig(
            root=str(data),
            train_images="train",
            train_annotations="annotations/instances_train.json",
            val_images="val",
            val_annotations="annotations/instances_val.json",
            train_short_sides=(_SIZE,),
            test_short_side=_SIZE,
            long_side=_SIZE,
            canvases=((_SIZE, _SIZE),),
            max_objects=16,
            mask_grid=56,
        ),
        train=TrainConfig(
            steps=_STEPS,
            batch_size=8,
            seed=seed,
            optimizer="adamw",
            adam_b2=0.99,
            learning_rate=0.002,
            schedule="cosine",
            warmup_steps=50,
            clip_norm=5.0,
            keypoint_weight=0.25,
            rpn_samples=64,
            rpn_pre_nms=256,
            rpn_post_nms=128,
            roi_samples=32,
            log_every=50,
            checkpoint_every=200,
        ),
        test=TestConfig(batch_size=8, rpn_pre_nms=256, rpn_post_nms=128, candidates=512, detections=32),
    )


def draw(folder: Path) -> None:
    """Draws the pictures, unless they are there."""
    make_shapes(folder, train=_TRAIN, val=_VAL, image_size=_SIZE, seed=0, workers=os.cpu_count() or 1)


def rpn_alone(config: Config) -> Config:
    """The RPN of a small config, to be trained by itself; its seed is 0, so that all rows share it."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, roi_pooling="align", **RPN_ALONE),
        train=dataclasses.replace(config.train, seed=0, steps=_RPN_STEPS),
    )


def on_proposals(config: Config, name: str) -> Config:
    """The config without an RPN, on the proposals of this name in its data's folder."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, rpn=False),
        data=dataclasses.replace(
            config.data,
            train_proposals=proposals_file(name, "train"),
            val_proposals=proposals_file(name, "val"),
        ),
    )
