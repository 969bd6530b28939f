"""The settings of every field in which torchvision, Detectron2 and MMDetection differ (R50-FPN on COCO).

The files in ``configs/torchvision``, ``configs/detectron2`` and ``configs/mmdetection`` begin with one of
them. What each field does is said in ``fields.py``, how near the results come to that system in
``docs/fidelity.md``.
"""

from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig

# Weights of the second and third box head's deltas in Cascade R-CNN (arXiv 1712.00726).
CASCADE = ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
# The same in MMDetection, which has their inverses: .05 and .1, .033 and .067.
MMDETECTION_CASCADE = ((20.0, 20.0, 10.0, 10.0), (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067))
SMALL_TO_LARGE = (640, 672, 704, 736, 768, 800)  # pixels: Detectron2's training scales


def torchvision(augmentation: str = "hflip") -> Config:
    """As ``maskrcnn_resnet50_fpn`` (torchvision 0.28), which is trained for 26 epochs of 16 images a step.

    ``augmentation`` is as ``--data-augmentation`` of torchvision's reference training, whose default is
    "hflip": mirrored images alone. "multiscale" draws a short side of 480 to 800 pixels, "lsj" is large-scale
    jitter; pixels of the former are not antialiased here as they are there. Raises ValueError for others.
    """
    data = DataConfig(resize="torchvision", train_short_sides=(800,))
    match augmentation:
        case "hflip":
            pass
        case "multiscale":
            data.train_short_sides = tuple(range(480, 801, 32))
        case "lsj":
            jitter_scale(data)
        case _:
            raise ValueError(f"augmentation is {augmentation!r}; it must be 'hflip', 'multiscale' or 'lsj'")
    return Config(
        model=ModelConfig(
            pixel_order="rgb",
            pixel_mean=(123.675, 116.28, 103.53),
            pixel_std=(58.395, 57.12, 57.375),
            anchor_rounded=True,
            anchor_stride="image",
            rpn_smallest_side=1e-3,
            roi_level_rule="torchvision",
            roi_sampling_ratio=2,
            roi_aligned=False,
        ),
        data=data,
        train=TrainConfig(
            steps=190_580,  # 7330 an epoch
            decay_steps=(117_280, 161_260),
            rpn_post_nms=2000,
            rpn_beta=1 / 9,
            rpn_normalizer="sampled",
            box_beta=1 / 9,
            mask_soft_targets=True,
        ),
        test=TestConfig(box_smallest_side=1e-2, mask_paste="torchvision", keypoint_score="logit"),
    )


def detectron2() -> Config:
    """As ``mask_rcnn_R_50_FPN_1x``: 90,000 steps of 16 images."""
    return Config(
        model=ModelConfig(
            pixel_order="bgr",
            pixel_mean=(103.53, 116.28, 123.675),
            pixel_std=(1.0, 1.0, 1.0),
            backbone_stride_in_1x1=True,
            roi_sampling_ratio=0,
            roi_aligned=True,
        ),
        data=DataConfig(train_short_sides=SMALL_TO_LARGE, keypoint_offset=0.5),
        test=TestConfig(keypoint_score="probability"),
    )


def detectron2_3x() -> Config:
    """As ``mask_rcnn_R_50_FPN_3x``: 270,000 steps."""
    config = detectron2()
    config.train.steps = 270_000
    config.train.decay_steps = (210_000, 250_000)
    return config


def mmdetection(style: str = "pytorch") -> Config:
    """As ``mask-rcnn_r50_fpn_1x_coco`` (MMDetection 3.3): 12 epochs of 7330 steps of 16 images.

    ``style`` says which ResNet it begins from: torchvision's ("pytorch") or, as in the configurations with
    "caffe" in their names, Detectron2's ("caffe"), which has the strides in other convolutions and takes BGR
    pixels that are not divided. How training differs from MMDetection's is said in ``docs/fidelity.md``.
    Raises ValueError for another style.
    """
    if style not in ("pytorch", "caffe"):
        raise ValueError(f"style is {style!r}; it must be 'pytorch' or 'caffe'")
    model = (torchvision() if style == "pytorch" else detectron2()).model
    pixels = {name: getattr(model, name) for name in ("pixel_order", "pixel_mean", "pixel_std")}
    return Config(
        model=ModelConfig(
            **pixels,
            backbone_stride_in_1x1=style == "caffe",
            roi_level_rule="mmdetection",
            box_scale_limits="both",
            roi_sampling_ratio=0,
            roi_aligned=True,
        ),
        data=DataConfig(resize="mmdetection", train_short_sides=(800,)),
        train=TrainConfig(
            steps=87_960, decay_steps=(58_640, 80_630), warmup_steps=500, rpn_normalizer="sampled"
        ),
        test=TestConfig(cascade_score="logit"),
    )


def as_c4(config: Config) -> None:
    """Makes Detectron2's R50-C4 of its R50-FPN: what ``Base-RCNN-C4.yaml`` changes."""
    model = config.model
    model.features = "c4"
    model.padding_multiple = 1
    model.box_pool_size = 14
    model.box_fcs = 0
    model.mask_convs = 0
    as_one_map(config)


def as_one_map(config: Config) -> None:
    """Gives the RPN of a single map (C4, C5 or DC5) the numbers of proposals of Detectron2's C4 and DC5."""
    config.train.rpn_pre_nms = 12_000
    config.train.rpn_post_nms = 2000
    config.test.rpn_pre_nms = 6000


def as_cascade(config: Config) -> None:
    """Makes Detectron2's Cascade R-CNN of its R50-FPN: ``CascadeROIHeads`` and its zoo's proposals."""
    config.model.box_agnostic = True
    config.model.box_cascade = CASCADE
    config.train.cascade_positive_ious = (0.6, 0.7)
    config.train.rpn_post_nms = 2000


def as_mmdetection_cascade(config: Config) -> None:
    """Makes MMDetection's Cascade Mask R-CNN of its R50-FPN, which has a mask head for each box head."""
    as_cascade(config)
    config.model.box_cascade = MMDETECTION_CASCADE
    config.model.mask_cascade = True


def vitdet(size: str) -> Config:
    """As ``mask_rcnn_vitdet_<size>_<..>ep`` of Detectron2's project ViTDet (arXiv 2203.16527).

    ``size`` is "b", "l" or "h". The recipe there is for 64 images a step, in half precision.
    """
    depth, rate_decay, drop_path = {"b": (12, 0.7, 0.1), "l": (24, 0.8, 0.4), "h": (32, 0.9, 0.5)}[size]
    config = detectron2()
    model, data, train = config.model, config.data, config.train
    rgb = torchvision().model
    model.pixel_order, model.pixel_mean, model.pixel_std = rgb.pixel_order, rgb.pixel_mean, rgb.pixel_std
    model.padding_multiple = 1024
    model.backbone = f"vit_{size}"
    model.backbone_stride_in_1x1 = False
    model.backbone_frozen_stages = 0
    model.backbone_drop_path = drop_path
    model.fpn_norm = model.box_norm = model.mask_norm = "layer"
    model.rpn_convs = 2
    model.box_convs, model.box_fcs = 4, 1
    data.train_short_sides, data.test_short_side, data.long_side = (1024,), 1024, 1024
    data.scale_jitter = (0.1, 2.0)
    data.canvases = ((1024, 1024),)
    train.batch_size = 64
    train.steps = 138_281 if size == "h" else 184_375  # 75 epochs, 100 epochs
    train.decay_steps = (122_916, 133_159) if size == "h" else (163_889, 177_546)
    train.warmup_steps = 187 if size == "h" else 250  # there a share of the steps, which stays the same
    train.optimizer = "adamw"
    train.learning_rate = 1e-4
    # Detectron2 knows the norms of the blocks as such, but not those of its own class.
    train.weight_decay = train.weight_decay_norm = 0.1
    train.rate_factors = layer_rates(depth, rate_decay)
    if size != "h":
        train.weight_decay_factors = (("backbone.pos_embed", 0.0), ("backbone.blocks.*.norm?.*", 0.0))
    return config


def vitdet_lvis(size: str) -> Config:
    """As ``LVIS/mask_rcnn_vitdet_<size>_100ep`` of the same project: 100 epochs of LVIS v1."""
    config = vitdet(size)
    model, data, train, test = config.model, config.data, config.train, config.test
    model.box_scores = "sigmoid"
    if size == "h":
        model.backbone_drop_path = 0.4
    data.train_images = data.val_images = "."
    data.train_annotations = "annotations/lvis_v1_train.json"
    data.val_annotations = "annotations/lvis_v1_val.json"
    data.repeat_threshold = 0.001
    train.steps, train.decay_steps, train.warmup_steps = 156_250, (138_889, 150_463), 250
    train.learning_rate = 1e-4 if size == "h" else 2e-4
    train.federated_classes = 50
    test.score_threshold, test.detections = 0.02, 300
    return config


def layer_rates(depth: int, decay: float) -> tuple[tuple[str, float], ...]:
    """Factors of the learning rate for a ViT: ``decay`` to the power of how many layers are above.

    The heads and the pyramid are above the blocks, patches and positions below them (arXiv 2106.08254;
    Detectron2's ``get_vit_lr_decay_rate``).
    """
    embedding = [(f"backbone.{name}", decay ** (depth + 1)) for name in ("pos_embed", "patch_embed.*")]
    return (*embedding, *((f"backbone.blocks.{i}.*", decay ** (depth - i)) for i in range(depth)))


def adamw_3x(backbone: str) -> Config:
    """Mask R-CNN with ConvNeXt or Swin, trained for 36 epochs of 16 images a step with AdamW.

    As MMDetection's mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x and mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x;
    ConvNeXt-S has the dropped paths and the factors of rates of its Cascade Mask R-CNN.
    Raises ValueError unless ``backbone`` is one of theirs in size T or S.
    """
    drop_paths = {"convnext_t": 0.4, "convnext_s": 0.6, "swin_t": 0.2, "swin_s": 0.2}
    if backbone not in drop_paths:
        raise ValueError(f"backbone is {backbone!r}; it must be one of {', '.join(drop_paths)}")
    config = Config()
    model, train = config.model, config.train
    model.backbone = backbone
    model.backbone_frozen_stages = 0
    model.backbone_drop_path = drop_paths[backbone]
    model.roi_sampling_ratio = 0
    detr_crops(config.data)
    train.steps = 263_880  # 7330 an epoch
    train.decay_steps = (197_910, 241_890)  # after 27 and 33
    train.optimizer = "adamw"
    train.learning_rate, train.weight_decay = 1e-4, 0.05
    if backbone.startswith("convnext"):
        train.rate_factors = convnext_rates(backbone.removeprefix("convnext_"))
        train.weight_decay_factors = (("*.bias", 0.0), ("backbone.*.gamma", 0.0))
    else:
        train.weight_decay_factors = (("backbone.*.relative_position_bias_table", 0.0),)
    return config


def convnext_rates(size: str) -> tuple[tuple[str, float], ...]:
    """Factors of the learning rate for ConvNeXt "t" or "s", the less the nearer a layer is to the image.

    Layers are the stem, stages 1 and 2, every three blocks of stage 3, and stage 4; what is above has the
    full rate (MMDetection's ``LearningRateDecayOptimizerConstructor``).
    """
    blocks, decay = {"t": (9, 0.95), "s": (27, 0.7)}[size]
    top = 3 + blocks // 3
    layers = [("stem*", 0), ("stages.0.*", 1), ("stages.1.*", 2), ("stages.2.*", 3)]
    layers += [(f"stages.2.blocks.{i}.*", 3 + i // 3) for i in range(blocks)]
    layers += [("stages.3.*", top)]
    return tuple((f"backbone.{name}", decay ** (top + 1 - layer)) for name, layer in layers)


def detr_crops(data: DataConfig) -> None:
    """Resizes images to 480 to 800 pixels, half of them after DETR's crop (arXiv 2005.12872, A.4).

    That is a part of 384 to 600 pixels a side of the image at 400, 500 or 600. It may become 1250 x 800
    pixels, either way up, so images are on square canvases.
    """
    data.train_short_sides = tuple(range(480, 801, 32))
    data.crop, data.crop_size = "absolute_range", (384.0, 600.0)
    data.crop_share, data.crop_short_sides = 0.5, (400, 500, 600)
    data.canvases = ((1280, 1280), (1344, 1344), *data.canvases)  # the others are evaluation's


def jitter_scale(data: DataConfig) -> None:
    """Has images jittered in scale and cut to 1024 x 1024 pixels, as both systems' recipes do.

    There an image is filled up to that size with a colour, which counts as part of it. Here, as ever, what
    lies beyond an image is kept out.
    """
    data.scale_jitter = (0.1, 2.0)
    data.canvases = ((1024, 1024), *data.canvases)  # the others are evaluation's
