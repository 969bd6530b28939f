"""The paper's models at a scale that two CPU cores carry: drawn shapes, and narrow layers."""

import dataclasses
from pathlib import Path

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig

_DEPTHS = {50: 18, 101: 34}
_SIZES = (12.0, 24.0, 48.0, 96.0, 192.0)  # pixels, of anchors on pictures of 128 x 128


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
            anchor_sizes=_SIZES,
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
            train_short_sides=(128,),
            test_short_side=128,
            long_side=128,
            canvases=((128, 128),),
            max_objects=16,
            mask_grid=56,
        ),
        train=TrainConfig(
            steps=400,
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
