"""The models of the Mask R-CNN paper (arXiv 1703.06870) and how it trains them.

``configs/paper/`` has a file for every row of its tables. Pixels and strides are those of the ImageNet
weights that the paper starts from (Caffe's, BGR, divided by no deviation), which its authors published with
Detectron; docs/zoo.md has their names. RoIAlign has no half-pixel offset, which Detectron2 added later.

For its ablations the paper trains RPN by itself, with the same backbone (3.1). These configs have an RPN of
their own; ``mrcnn-jax reproduce`` trains their rows on the proposals of one that they share.
"""

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig, presets


def r50_fpn() -> Config:
    """R50-FPN: 160,000 steps of 16 images, 512 regions of each (paper 3.1)."""
    return Config(
        model=ModelConfig(
            pixel_order="bgr",
            pixel_mean=(103.53, 116.28, 123.675),
            pixel_std=(1.0, 1.0, 1.0),
            backbone_stride_in_1x1=True,
            roi_sampling_ratio=2,
            roi_aligned=False,
        ),
        data=DataConfig(train_short_sides=(800,)),
        train=TrainConfig(steps=160_000, decay_steps=(120_000,)),
        test=TestConfig(nms_iou=0.3),
    )


def r50_c4() -> Config:
    """R50-C4: 64 regions of each image, 300 proposals at test (paper 3.1).

    Stage 5 has a stride of 1 on regions of 7 x 7 (figure 4, left). Detectron2's has 2, on 14 x 14.
    """
    config = r50_fpn()
    presets.as_c4(config)
    config.model.res5_stride = 1
    config.model.box_pool_size = 7
    config.model.mask_pool_size = 7
    config.train.roi_samples = 64
    config.test.rpn_post_nms = 300
    return config


def r50_c5() -> Config:
    """R50-C5: one map of stride 32 (paper, table 2d).

    The paper states neither the heads nor the numbers of proposals. Here the heads are those of FPN, and the
    proposals as many as for C4, the other single map.
    """
    config = r50_fpn()
    config.model.features = "c5"
    presets.as_one_map(config)
    config.test.rpn_post_nms = 300
    return config


def as_r101(config: Config) -> None:
    """Gives the model ResNet-101."""
    config.model.backbone_depth = 101


def as_x101(config: Config) -> None:
    """Gives the model ResNeXt-101 64x4d, with 8 images a step and half the learning rate (paper 3.1)."""
    as_r101(config)
    model = config.model
    model.backbone_groups = 64
    model.backbone_group_width = 4
    model.backbone_stride_in_1x1 = False
    config.train.batch_size = 8
    config.train.learning_rate = 0.01


def as_x152(config: Config) -> None:
    """Gives the model ResNeXt-152 (appendix B), trained like ``as_x101``.

    The paper does not state its groups. 32 of 8 channels are those of the ResNeXt-152 that its authors
    published, trained on ImageNet-5k.
    """
    as_x101(config)
    model = config.model
    model.backbone_depth = 152
    model.backbone_groups = 32
    model.backbone_group_width = 8


def without_masks(config: Config) -> None:
    """Makes the model Faster R-CNN, with RoIAlign."""
    config.model.mask = False


def r50_fpn_persons(*, mask: bool, keypoint: bool) -> Config:
    """R50-FPN for persons: 90,000 steps at scales of 640 to 800 pixels, NMS at .5 (paper 5).

    All models are trained on the images with keypoints (paper 5, table 5), also those that only find boxes.
    """
    config = r50_fpn()
    config.model.mask = mask
    config.model.keypoint = keypoint
    data = config.data
    data.train_annotations = "annotations/person_keypoints_train2017.json"
    data.val_annotations = "annotations/person_keypoints_val2017.json"
    data.train_short_sides = presets.SMALL_TO_LARGE
    data.min_keypoints = 1
    config.train.steps = 90_000
    config.train.decay_steps = (60_000, 80_000)
    config.test.nms_iou = 0.5
    return config


def on_cityscapes(config: Config, *, coco: bool) -> None:
    """Gives a model Cityscapes and its schedule: from ImageNet, or from a model of COCO (appendix A).

    From ImageNet there are 24,000 steps of 8 images at a rate of 0.01, which becomes 0.001 at 18,000. From
    COCO there are 4000, and the rate becomes 0.001 at 3000; the paper does not state the first rate, taken to
    be the same, nor a warm-up, which is Detectron2's.
    """
    data, train = config.data, config.train
    data.root = "data/cityscapes"
    data.train_images, data.train_annotations = "leftImg8bit/train", "train.json"
    data.val_images, data.val_annotations = "leftImg8bit/val", "val.json"
    data.train_short_sides = tuple(range(800, 1025))
    data.test_short_side = 1024
    data.long_side = 2048
    data.canvases = ((1024, 2048), (2048, 1024))  # the second one is for upright images: there are none
    data.max_objects = 200  # some streets are crowded
    train.batch_size = 8
    train.learning_rate = 0.01
    train.steps, train.decay_steps = (4000, (3000,)) if coco else (24_000, (18_000,))
    train.checkpoint_every = train.eval_every = 1000


def update(config: Config) -> None:
    """The updated baseline of appendix B: 180,000 steps, and boxes suppressed above an IoU of .5, not .3."""
    config.train.steps = 180_000
    config.train.decay_steps = (120_000, 160_000)
    config.test.nms_iou = 0.5


def update_persons(config: Config) -> None:
    """The updated baseline of appendix B for keypoints: 130,000 steps."""
    config.train.steps = 130_000
    config.train.decay_steps = (100_000, 120_000)


def distill(config: Config) -> None:
    """Adds COCO's unlabelled images, annotated by a model (appendix B; docs/data.md, "Data distillation").

    The paper does not say how often they are seen. Here 6 of 10 images are labelled ones, as in the example
    of docs/data.md.
    """
    config.data.more_train_images = ("unlabeled2017",)
    config.data.more_train_annotations = ("annotations/person_keypoints_unlabeled2017.json",)
    config.data.train_shares = (0.6, 0.4)


def augment_training(config: Config) -> None:
    """Training at scales of 640 to 800 pixels, for 260,000 steps (appendix B)."""
    config.data.train_short_sides = presets.SMALL_TO_LARGE
    config.train.steps = 260_000
    config.train.decay_steps = (200_000, 240_000)


def augment_testing(config: Config) -> None:
    """Testing at scales of 400 to 1200 pixels in steps of 100, each also mirrored (appendix B)."""
    config.test.scales = tuple(range(400, 1201, 100))
    config.test.flip = True
