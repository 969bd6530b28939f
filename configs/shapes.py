"""Boxes, masks and keypoints of drawn shapes: all of Mask R-CNN in ten minutes on two CPU cores.

    mrcnn-jax shapes --output=data/shapes
    mrcnn-jax train --config=shapes --workdir=runs/shapes

AP 64.5 for boxes, 52.5 for masks and 59.3 for keypoints after 1200 steps (docs/results.md).
"""

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            backbone_depth=18,
            backbone_width=24,
            backbone_norm="batch",
            backbone_frozen_stages=0,
            backbone_recomputed_stages=0,
            fpn_channels=64,
            fpn_norm="batch",
            anchor_sizes=(12.0, 24.0, 48.0, 96.0, 192.0),
            roi_canonical_size=96.0,
            box_channels=256,
            mask_convs=2,
            mask_channels=32,
            keypoint=True,
            keypoint_pool_size=7,
            keypoint_convs=4,
            keypoint_channels=64,
        ),
        data=DataConfig(
            root="data/shapes",
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
            steps=1200,
            batch_size=8,
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
            log_every=20,
            checkpoint_every=150,
            eval_every=150,
        ),
        test=TestConfig(batch_size=8, rpn_pre_nms=256, rpn_post_nms=128, candidates=512, detections=32),
    )
