"""Fine-tunes R50-FPN on your own photos, a folder in COCO format, from an ImageNet backbone.

    mrcnn-jax train --config=balloon --workdir=runs/balloon --config.data.root=PHOTOS \
        --config.model.backbone_weights=resnet50.npz

PHOTOS holds ``annotations/instances_train.json``, ``annotations/instances_val.json``, ``train/`` and
``val/``; the number of categories comes from the annotations. The sizes suit a laptop: photos of 352 pixels,
two per batch; anchors and pyramid levels are scaled to match, to half the paper's sizes.

By default, the backbone file must follow MSRA's and Caffe's conventions (stride in the first 1x1 convolution,
BGR pixels minus a mean). For torchvision's ResNet-50, use ``--config=balloon:torchvision``.
"""

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig


def get_config(backbone: str = "msra") -> Config:
    match backbone:
        case "msra":
            model = ModelConfig(
                pixel_order="bgr",
                pixel_mean=(103.939, 116.779, 123.68),
                pixel_std=(1.0, 1.0, 1.0),
                backbone_norm_epsilon=1.001e-5,
                backbone_stride_in_1x1=True,
            )
        case "torchvision":
            model = ModelConfig()
        case _:
            raise ValueError(f"configs/balloon.py:{backbone}: the backbone must be 'msra' or 'torchvision'")
    model.anchor_sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    model.roi_canonical_size = 112.0
    return Config(
        model=model,
        data=DataConfig(
            root="data/balloon",
            train_images="train",
            train_annotations="annotations/instances_train.json",
            val_images="val",
            val_annotations="annotations/instances_val.json",
            train_short_sides=(224, 240, 256),
            test_short_side=256,
            long_side=352,
            canvases=((256, 352), (352, 256)),
        ),
        train=TrainConfig(
            steps=1000,
            batch_size=2,
            learning_rate=0.008,
            schedule="cosine",
            warmup_steps=50,
            warmup_factor=0.01,
            clip_norm=10.0,
            rpn_samples=128,
            rpn_pre_nms=1000,
            rpn_post_nms=300,
            roi_samples=64,
            log_every=10,
            checkpoint_every=250,
            eval_every=500,
        ),
        test=TestConfig(rpn_pre_nms=500, rpn_post_nms=300),
    )
