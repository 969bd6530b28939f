"""Every setting of a run, typed, with its unit and source.

"paper" is Mask R-CNN (arXiv 1703.06870), "FPN" arXiv 1612.03144, "Faster" arXiv 1506.01497, "D2" Detectron2,
"TV" torchvision. Where these two differ, ``presets.py`` has both settings of the field.

A file in ``configs/`` defines ``get_config() -> Config``; ``--config.train.steps=100`` overrides a field.
"""

import dataclasses
from dataclasses import dataclass, field


@dataclass
class ModelConfig:
    """What a trained model needs to compute from pixels to head outputs."""

    # Pixels: RGB 0 to 255 become (value - mean) / std, in this order of channels.
    pixel_order: str = "rgb"  # "rgb" or "bgr": the order the backbone was trained with
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # in pixel_order
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    padding_multiple: int = (
        32  # pixels: results are those of an image padded to a multiple; 1: none (D2's C4)
    )
    dtype: str = "float32"  # compute type of backbone and heads: "float32" or "bfloat16"

    # Features: a pyramid ("fpn"), the one map of stage 4 with stage 5 as the heads' first layers ("c4": paper
    # figure 4 left), or that of stage 5 dilated to the stride of stage 4 ("dc5": D2).
    features: str = "fpn"

    # Backbone: ResNet (arXiv 1512.03385) or ResNeXt (arXiv 1611.05431).
    backbone_depth: int = 50  # 18, 34, 50, 101 or 152
    backbone_width: int = 64  # channels after the stem; 64 in the paper, fewer for a narrow net
    backbone_groups: int = 1  # of the 3x3 convolutions of a bottleneck; 32 in ResNeXt 32x8d
    backbone_group_width: int = 64  # channels of such a group in layer1, if backbone_width is 64; 8 in 32x8d
    backbone_norm: str = "frozen_batch"  # "frozen_batch", "batch" or "group" (32 groups)
    backbone_norm_epsilon: float = 1e-5
    backbone_stride_in_1x1: bool = False  # stride of a bottleneck on its first 1x1 (MSRA) or on its 3x3
    backbone_frozen_stages: int = 2  # 0: all trained, 1: stem frozen, 2: stem and layer1, ... (D2 FREEZE_AT)
    # 0: none, 1: layer1, 2: and layer2, ...: training keeps nothing of what is inside these, but computes it
    # again for the gradient. Less memory, more time, the same results. MMDetection's with_cp is 4.
    backbone_recomputed_stages: int = 4
    backbone_weights: str = ""  # .npz in torchvision's key names; "": random

    # Feature pyramid (FPN), anchors and region proposals.
    fpn_channels: int = 256
    fpn_norm: str = ""  # after each convolution: "" (none), or as backbone_norm ("batch" in TV's v2)
    anchor_sizes: tuple[float, ...] = (
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
    )  # pixels: one per level, or all on one
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    anchor_rounded: bool = False  # corners of the anchors at the origin are whole pixels (TV)
    anchor_stride: str = (
        "level"  # between anchors: the level's 2^k pixels, or "image": padded size // cells (TV)
    )
    rpn_convs: int = 1  # 3x3 convolutions of the RPN's head (2 in TV's v2)
    rpn_box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # of the deltas dx, dy, dw, dh
    rpn_smallest_side: float = (
        0.0  # pixels: proposals with a shorter side, or none at all, are dropped (TV 1e-3)
    )

    # Region of interest features (paper 3, figure 4).
    roi_canonical_size: float = 224.0  # a box of this size, in pixels, is pooled from p4 (FPN equation 1)
    roi_level_rule: str = "detectron2"  # rounding of that equation: "detectron2" or "torchvision"
    roi_sampling_ratio: int = 2  # samples per bin and axis (TV); 0: adaptive, one per cell (D2)
    roi_aligned: bool = True  # half-pixel centres (D2's ROIAlignV2); without in TV

    # Box head: convolutions, fully connected layers. With features "c4" stage 5 takes the place of both.
    box_pool_size: int = 7
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # as rpn_box_weights
    box_convs: int = 0  # 4 in TV's v2
    box_norm: str = ""  # of the convolutions, as fpn_norm
    box_fcs: int = 2
    box_channels: int = 1024  # of the fully connected layers

    # Mask head: convolutions, deconvolution, one sigmoid per category.
    mask: bool = True
    mask_pool_size: int = 14
    mask_convs: int = 4
    mask_norm: str = ""  # of the convolutions, as fpn_norm
    mask_channels: int = 256

    # Keypoint head: convolutions, deconvolution, x2 bilinear, one softmax over the map per keypoint.
    keypoint: bool = False
    keypoint_pool_size: int = 14
    keypoint_convs: int = 8
    keypoint_channels: int = 512


@dataclass
class DataConfig:
    """Where the images are, and how they become batches. Paths are relative to ``root``."""

    root: str = "data/coco"
    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    train_keypoints: str = ""  # person_keypoints_*.json, joined by annotation id; "": none apart
    train_records: str = ""  # a folder that prepare_coco.py made, in place of the three above
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"
    val_keypoints: str = ""

    train_short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)  # pixels, one drawn per image
    test_short_side: int = 800
    long_side: int = 1333  # pixels: the most the longer side may have after resizing
    # Height, width: each image lies on the smallest that holds it at its largest training size. A shape is
    # compiled for each. For COCO's sizes, see docs/data.md.
    canvases: tuple[tuple[int, int], ...] = ((800, 1344), (1344, 800), (800, 1088), (1088, 800), (800, 1216))
    resize: str = (
        "detectron2"  # Pillow on 8-bit pixels, or "torchvision": on floats, not antialiased, size floored
    )
    max_objects: int = 100  # rows of ground truth per image: crowds, then objects from large to small
    mask_grid: int = 112  # cells of a box-frame mask, per axis
    flip: bool = True  # mirror half of the training images
    # Large-scale jitter: images are resized to fit the first canvas times a factor from this range, with
    # Pillow, and cut to it. (): train_short_sides instead. (0.1, 2.0) in D2's and TV's recipes for it.
    scale_jitter: tuple[float, ...] = ()
    colour_jitter: bool = False  # brightness, contrast, saturation, hue (TV's RandomPhotometricDistort)
    keep_empty: bool = False  # train on images without objects too
    skip_bad: bool = False  # train without the damaged images and annotations of a folder; False: an error
    keypoint_offset: float = 0.0  # pixels added to the keypoints of files and taken off results (D2 0.5)


@dataclass
class TrainConfig:
    """Sampling, losses, optimizer and the loop."""

    steps: int = 90_000
    batch_size: int = 16  # images over all devices
    seed: int = 0

    # Optimizer: SGD with momentum.
    learning_rate: float = 0.02  # after warm-up
    schedule: str = "step"  # "step" or "cosine"
    decay_steps: tuple[int, ...] = (60_000, 80_000)  # of "step": where the rate is multiplied ...
    decay_factor: float = 0.1  # ... by this
    warmup_steps: int = 1000
    warmup_factor: float = 0.001  # the rate of step 0, as a share of learning_rate
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_norm: float = 0.0  # on scales and offsets of normalisation (D2)
    clip_norm: float = 0.0  # largest norm of the whole gradient; 0: no clipping

    # Region proposals (Faster 3.1).
    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 256  # anchors per image
    rpn_positive_fraction: float = 0.5
    rpn_pre_nms: int = 2000  # proposals kept per level before suppression ...
    rpn_post_nms: int = 1000  # ... and per image after it
    rpn_nms_iou: float = 0.7
    rpn_beta: float = 0.0  # smooth L1 below this is quadratic; 0: L1 (TV 1/9)
    rpn_normalizer: str = (
        "fixed"  # of both losses: rpn_samples per image, or "sampled": those there were (TV)
    )

    # Heads (paper 3.1).
    roi_samples: int = 512  # regions per image
    roi_positive_fraction: float = 0.25
    roi_positive_iou: float = 0.5
    box_beta: float = 0.0  # as rpn_beta (D2's keypoint models 0.5)
    mask_soft_targets: bool = False  # a cell's target is the mask's value there, not whether it is >= .5 (TV)
    crowd_ioa: float = 0.7  # an anchor or region with this share inside a crowd is no negative

    # Loop.
    log_every: int = 20  # steps
    checkpoint_every: int = 5000
    keep_checkpoints: int = 3  # the latest; the best of those evaluated is kept besides
    eval_every: int = 0  # steps between evaluations on the validation set; 0: none
    eval_images: int = 0  # of the validation set, from its start; 0: all


@dataclass
class TestConfig:
    """From head outputs to detections."""

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    batch_size: int = 1  # images at a time in evaluation
    rpn_pre_nms: int = 1000
    rpn_post_nms: int = 1000
    rpn_nms_iou: float = 0.7
    score_threshold: float = 0.05
    nms_iou: float = 0.5  # within a category
    candidates: int = 4096  # best (region, category) pairs that suppression looks at
    detections: int = 100  # per image
    box_smallest_side: float = (
        0.0  # pixels: boxes with a shorter side are dropped before suppression (TV 1e-2); 0: empty ones after
    )
    mask_threshold: float = 0.5
    mask_paste: str = "detectron2"  # bilinear at pixel centres, or "torchvision": in a box of whole pixels
    keypoint_score: str = "logit"  # of a keypoint: its logit (TV), or "probability" within its region (D2)


@dataclass
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestConfig = field(default_factory=TestConfig)


def to_dict(config: Config) -> dict:
    """The config as nested dicts of plain values, as it is written to ``config.json``."""
    return dataclasses.asdict(config)
