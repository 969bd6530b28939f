"""Every setting of a run, typed, with its default, rules, unit and source.

A line reads ``name: type = what_it_decides(default, rules)``. What a field decides is one of

    architecture   which layers and weights a model has: fixed for a run
    behaviour      what those weights detect and were trained with: fixed for a run
    training       the steps of training: fixed for a run
    inference      what is detected, but not how training goes: may change when a run is resumed
    free           none of these: may change when a run is resumed

and the rules say which values it may have (``rules.py``). Those of the last section, from head outputs to
detections, are in ``inference_fields.py``.

"paper" is Mask R-CNN (arXiv 1703.06870), "FPN" arXiv 1612.03144, "Faster" arXiv 1506.01497, "D2" Detectron2,
"TV" torchvision, "MMDet" MMDetection. Where these differ, ``presets.py`` has each system's settings.

A file in ``configs/`` defines ``get_config() -> Config``; ``--config.train.steps=100`` overrides a field.
"""

import dataclasses
from dataclasses import dataclass, field

from mrcnn_jax.config.inference_fields import TestConfig
from mrcnn_jax.config.rules import (
    anything,
    architecture,
    behaviour,
    below_one,
    between,
    free,
    inference,
    no_empty_item,
    not_empty,
    not_negative,
    one_of,
    positive,
    settings_of,
    share,
    training,
)

_regnets = ("400mf", "800mf", "1_6gf", "3_2gf", "4gf", "8gf", "16gf", "32gf")
_backbones = (
    "resnet",
    *(f"regnet{kind}_{size}" for kind in "xy" for size in _regnets),
    *("convnext_t", "convnext_s", "swin_t", "swin_s", "vit_b", "vit_l", "vit_h"),
)
_box_loss = one_of("smooth_l1", "giou", "diou", "ciou")
_norm = one_of("frozen_batch", "batch", "group")  # "group": of 32 groups
# "layer": over the channels of each cell.
_norm_or_none = one_of("", "frozen_batch", "batch", "group", "layer")


@dataclass
class ModelConfig:
    """What a trained model needs to compute from pixels to head outputs."""

    # Pixels: RGB 0 to 255 become (value - mean) / std, in the channel order the backbone was trained with:
    # "bgr" exchanges the first and third channel of an image. As many means as the images have channels.
    pixel_order: str = behaviour("rgb", one_of("rgb", "bgr"))
    pixel_mean: tuple[float, ...] = behaviour((123.675, 116.28, 103.53), not_empty)
    pixel_std: tuple[float, ...] = behaviour((58.395, 57.12, 57.375), positive)
    # 8 bits, or "float32": the values of the files, in whose units the means are (docs/channels.md).
    pixel_type: str = behaviour("uint8", one_of("uint8", "float32"))
    # Pixels: results are those of an image padded to a multiple of this. 1: not padded (D2's C4).
    padding_multiple: int = behaviour(32, positive)
    dtype: str = training("float32", one_of("float32", "bfloat16"))  # compute type of backbone and heads

    # Features: a pyramid ("fpn"), the one map of stage 4 with stage 5 as the heads' first layers ("c4": paper
    # figure 4 left), that of stage 5 with the heads of "fpn" ("c5": paper table 2d), or the same map dilated
    # to the stride of stage 4 ("dc5": D2).
    features: str = architecture("fpn", one_of("fpn", "c4", "c5", "dc5"))
    # Of stage 5 in the heads of "c4": 2 turns regions of 14 x 14 into 7 x 7 (arXiv 1512.03385, D2), 1 keeps
    # those of 7 x 7 (paper figure 4: set box_pool_size and mask_pool_size to 7). The weights are the same.
    res5_stride: int = architecture(2, one_of(1, 2))

    # Backbone: ResNet (arXiv 1512.03385) or ResNeXt (arXiv 1611.05431); or, for features "fpn", a RegNet of 4
    # GFLOPs (arXiv 2003.13678), ConvNeXt (arXiv 2201.03545) or Swin (arXiv 2103.14030), whose depths and
    # groups are fixed, or a plain vision transformer with the simple pyramid of ViTDet (arXiv 2203.16527).
    backbone: str = architecture("resnet", one_of(*_backbones))
    backbone_depth: int = architecture(50, one_of(18, 34, 50, 101, 152))
    # Channels after the stem; 64 in the paper, fewer for a narrow net.
    backbone_width: int = architecture(64, positive)
    backbone_groups: int = architecture(1, positive)  # of a bottleneck's 3x3 convolution; 32 in ResNeXt 32x8d
    # Channels of such a group in layer1, if backbone_width is 64; 8 in 32x8d.
    backbone_group_width: int = architecture(64, positive)
    # A non-local block (paper table 8) before the last block of layer3 (arXiv 1711.07971, section 6): over
    # maxima of 2 x 2 cells ("subsampled", as there) or over all cells ("full").
    non_local: str = architecture("", one_of("", "subsampled", "full"))
    # The 3x3 convolutions of layer2, layer3 and layer4 read cells at offsets that they learn ("plain", arXiv
    # 1703.06211), and weigh them ("modulated", arXiv 1811.11168). D2's DEFORM_ON_PER_STAGE without its first.
    backbone_deformable: str = architecture("", one_of("", "plain", "modulated"))
    backbone_norm: str = architecture("frozen_batch", _norm)
    backbone_norm_epsilon: float = behaviour(1e-5, not_negative)
    # Stride of a bottleneck on its first 1x1 (MSRA) or on its 3x3.
    backbone_stride_in_1x1: bool = architecture(False)
    # 0: all trained, 1: stem frozen, 2: stem and layer1, ... (D2 FREEZE_AT).
    backbone_frozen_stages: int = training(2, between(0, 5))
    # A block of the last layer is skipped in this share of the training images, others in proportion to their
    # depth (stochastic depth, arXiv 1603.09382); of a ConvNeXt, Swin or ViT.
    backbone_drop_path: float = training(0.0, share)
    # 0: none, 1: layer1, 2: and layer2, ... (of a ViT, quarters of its blocks): training keeps nothing of
    # what is inside these, but computes it again for the gradient. Less memory, more time, the same results.
    # MMDetection's with_cp is 4. -1: 4 on a CPU or with a ViT, else 0: of a ResNet, compiled for an H100, 0
    # takes 0.1 GB more per image of 800 x 1344 in bfloat16.
    backbone_recomputed_stages: int = free(-1, one_of(-1, 0, 1, 2, 3, 4))
    backbone_weights: str = training("", anything)  # a file or a name of docs/zoo.md; "": random

    # Feature pyramid (FPN), anchors and region proposals.
    fpn_channels: int = architecture(256, positive)
    fpn_norm: str = architecture("", _norm_or_none)  # after each convolution ("batch" in TV's v2)
    # A map and the one above it are added up, or averaged (D2 FUSE_TYPE).
    fpn_fuse: str = behaviour("sum", one_of("sum", "avg"))
    # Not trained, like the backbone's frozen stages (docs/four_step_training.md).
    fpn_frozen: bool = training(False)
    # False: no RPN; regions are the proposals of data.train_proposals and val_proposals (Fast R-CNN, arXiv
    # 1504.08083; D2's PrecomputedProposals).
    rpn: bool = architecture(True)
    # Pixels: one per level, or as many on each, those of p2 first; or all on one.
    anchor_sizes: tuple[float, ...] = behaviour((32.0, 64.0, 128.0, 256.0, 512.0), not_empty, positive)
    anchor_ratios: tuple[float, ...] = behaviour((0.5, 1.0, 2.0), not_empty, positive)  # height / width
    anchor_rounded: bool = behaviour(False)  # corners of the anchors at the origin are whole pixels (TV)
    # Between anchors: the level's 2^k pixels, or "image": padded size // cells (TV).
    anchor_stride: str = behaviour("level", one_of("level", "image"))
    rpn_convs: int = architecture(1, positive)  # 3x3 convolutions of the RPN's head (2 in TV's v2)
    # Of the RPN's deltas dx, dy, dw, dh.
    rpn_box_weights: tuple[float, float, float, float] = behaviour((1.0, 1.0, 1.0, 1.0), positive)
    # Of dw and dh in proposals and detections: at most log(1000 / 16), or also at least its negative ("both",
    # MMDet).
    box_scale_limits: str = behaviour("above", one_of("above", "both"))
    # Pixels: proposals with a shorter side, or none at all, are dropped (TV 1e-3).
    rpn_smallest_side: float = behaviour(0.0, not_negative)

    # Region of interest features (paper 3, figure 4).
    # Pixels: a box of this size is pooled from p4 (FPN equation 1) ...
    roi_canonical_size: float = behaviour(224.0, positive)
    # ... and that equation is rounded by this system's rule.
    roi_level_rule: str = behaviour("detectron2", one_of("detectron2", "torchvision", "mmdetection"))
    # RoIAlign, RoIPool ("pool") or RoIWarp (paper tables 2c, 2d, 6). RoIPool takes maxima of whole cells, the
    # others means of bilinear samples or, with "_max", maxima.
    roi_pooling: str = behaviour("align", one_of("align", "align_max", "pool", "warp", "warp_max"))
    # Samples per bin and axis (TV); 0: adaptive, one per cell (D2). Not read by "pool".
    roi_sampling_ratio: int = behaviour(2, not_negative)
    # Half-pixel centres (D2's ROIAlignV2); without in TV. Read by "align" and "align_max" only.
    roi_aligned: bool = behaviour(True)

    # Box head: convolutions, fully connected layers. With features "c4" stage 5 takes the place of both.
    # False: no heads, a region proposal network alone (D2's ProposalNetwork).
    box: bool = architecture(True)
    box_pool_size: int = architecture(7, positive)
    # Of the head's deltas dx, dy, dw, dh.
    box_weights: tuple[float, float, float, float] = behaviour((10.0, 10.0, 5.0, 5.0), positive)
    box_convs: int = architecture(0, not_negative)  # 4 in TV's v2
    box_norm: str = architecture("", _norm_or_none)  # of the convolutions
    box_fcs: int = architecture(2, not_negative)
    box_channels: int = architecture(1024, positive)  # of the fully connected layers
    box_agnostic: bool = architecture(False)  # one set of deltas for all categories (D2)
    # Scores are a softmax over the categories and the background, or a sigmoid for each category, trained by
    # binary cross-entropy (D2 USE_SIGMOID_CE); then the background's logit has no effect.
    box_scores: str = behaviour("softmax", one_of("softmax", "sigmoid"))
    # Further box heads, each of which begins with the boxes of the one before (Cascade R-CNN, arXiv
    # 1712.00726): the weights of their deltas, as box_weights. ((20, 20, 10, 10), (30, 30, 15, 15)) in D2.
    box_cascade: tuple[tuple[float, float, float, float], ...] = architecture((), positive)

    # Mask head: convolutions, deconvolution, one logit per category and cell (paper figure 4).
    mask: bool = architecture(True)
    mask_pool_size: int = architecture(14, positive)
    mask_convs: int = architecture(4, not_negative)
    mask_norm: str = architecture("", _norm_or_none)  # of the convolutions
    mask_channels: int = architecture(256, positive)
    # Hidden fully connected layers in place of the convolutions and the deconvolution, which must be switched
    # off by mask_convs=0 (paper table 2e: 2 and 3); 0: the convolutional head.
    mask_fcs: int = architecture(0, not_negative)
    mask_fc_channels: int = architecture(1024, positive)
    # A sigmoid per category, or a softmax over the categories and the background (paper table 2b).
    mask_loss: str = architecture("sigmoid", one_of("sigmoid", "softmax"))
    mask_agnostic: bool = architecture(False)  # one mask for all categories (paper 4.2, D2)
    # A mask head for each box head of a cascade, whose probabilities are averaged (MMDet), in place of one.
    mask_cascade: bool = architecture(False)

    # Keypoint head: convolutions, deconvolution, x2 bilinear, one softmax over the map per keypoint.
    keypoint: bool = architecture(False)
    keypoint_pool_size: int = architecture(14, positive)
    keypoint_convs: int = architecture(8, positive)
    keypoint_channels: int = architecture(512, positive)


@dataclass
class DataConfig:
    """Where the images are, and how they become batches. Paths are relative to ``root``."""

    root: str = free("data/coco", not_empty)
    train_images: str = training("train2017", not_empty)
    train_annotations: str = training("annotations/instances_train2017.json", not_empty)
    # person_keypoints_*.json, joined by annotation id; "": none apart.
    train_keypoints: str = training("", anything)
    # A folder that mrcnn-jax prepare made, in place of the three above: its batches are those of the folder.
    train_records: str = free("", anything)
    # Further data sets to train on together, with the categories of the first (arXiv 1712.04440): a folder of
    # images each, its annotations, and, unless "", a folder of records in place of both.
    more_train_images: tuple[str, ...] = training((), no_empty_item)
    more_train_annotations: tuple[str, ...] = training((), no_empty_item)
    more_train_records: tuple[str, ...] = free((), anything)
    # The first data set's share of the training images, and those of the others, relative to each other;
    # (): every image is seen equally often.
    train_shares: tuple[float, ...] = training((), positive)
    # Images of rare categories, in less than this share of the images, are repeated: sqrt(threshold / share)
    # times, by an image's rarest category (arXiv 1908.03195 B.2, D2 REPEAT_THRESHOLD .001). 0: none.
    repeat_threshold: float = training(0.0, share)
    val_images: str = free("val2017", not_empty)
    val_annotations: str = free("annotations/instances_val2017.json", not_empty)
    val_keypoints: str = free("", anything)
    val_records: str = free("", anything)  # likewise, in place of the three above
    # Files that mrcnn-jax propose made, for a model without an RPN (model.rpn).
    train_proposals: str = training("", anything)
    val_proposals: str = free("", anything)

    # Pixels: one of these is drawn per image.
    train_short_sides: tuple[int, ...] = training((640, 672, 704, 736, 768, 800), not_empty, positive)
    test_short_side: int = inference(800, positive)
    long_side: int = behaviour(1333, positive)  # pixels: the most the longer side may have after resizing
    train_long_side: int = training(0, not_negative)  # pixels, likewise in training; 0: long_side
    # Height, width: each image lies on the smallest that holds it at its largest training size. A shape is
    # compiled for each. For COCO's sizes, see docs/data.md.
    canvases: tuple[tuple[int, int], ...] = training(
        ((800, 1344), (1344, 800), (800, 1088), (1088, 800), (800, 1216)), not_empty, positive
    )
    # Pillow on 8-bit pixels, "torchvision": on floats, not antialiased, size floored, or "mmdetection": as
    # OpenCV, on 8-bit pixels, not antialiased.
    resize: str = behaviour("detectron2", one_of("detectron2", "torchvision", "mmdetection"))
    # Rows of ground truth per image. If there are more objects, the largest are trained on, and the others
    # are ignored like crowds, several in a row.
    max_objects: int = training(100, positive)
    mask_grid: int = training(112, positive)  # cells of a box-frame mask, per axis
    flip: bool = training(True)  # mirror half of the training images
    flip_vertical: bool = training(False)  # turn half of them upside down, mirrored (D2 RANDOM_FLIP vertical)
    quarter_turns: bool = training(False)  # turn them by 0, 90, 180 or 270 degrees, equally often
    # Degrees: turn each by an angle from minus to plus this, on a larger image that holds all of it (D2's
    # RandomRotation). Together with quarter_turns, 45 makes every angle equally likely.
    rotation: float = training(0.0, between(0, 45))
    # Train on a random part of each image, cut out before it is resized to one of train_short_sides, of a
    # size that is drawn in one of D2's ways (INPUT.CROP.TYPE); "": on all of it.
    crop: str = training("", one_of("", "relative", "relative_range", "absolute", "absolute_range"))
    # Height and width as shares, least shares or pixels; of "absolute_range" the least and most pixels.
    crop_size: tuple[float, float] = training((0.9, 0.9), positive)
    crop_share: float = training(1.0, share)  # of the images: the others are not cut (DETR, MMDet: 0.5)
    # Pixels: an image that is cut is first resized to one of these; (): it is not (400, 500, 600 in DETR).
    crop_short_sides: tuple[int, ...] = training((), positive)
    # Share of the images on which objects of another one are pasted (arXiv 2012.07177, with scale_jitter) ...
    copy_paste: float = training(0.0, share)
    # ... and in which a rectangle is blanked out (arXiv 1708.04896: 0.5).
    erase: float = training(0.0, share)
    # Large-scale jitter: images are resized to fit the first canvas times a factor from this range, with
    # Pillow, and cut to it. (): train_short_sides instead. (0.1, 2.0) in D2's and TV's recipes for it.
    scale_jitter: tuple[float, ...] = training((), positive)
    # Brightness, contrast, saturation, hue (TV's RandomPhotometricDistort).
    colour_jitter: bool = training(False)
    keep_empty: bool = training(False)  # train on images without objects too
    # Visible keypoints that an image must have, over all objects, to be trained on (D2's and TV's keypoint
    # models 1 and 10), also by a model without keypoints if the annotations have any; 0: any number.
    min_keypoints: int = training(0, not_negative)
    # Read crowds as ordinary objects: some tools mark every brush mask as a crowd.
    crowds_are_objects: bool = training(False)
    # Train without the damaged images and annotations of a folder; False: an error (so a run begun with False
    # has none to leave out).
    skip_bad: bool = free(False)
    # Pixels added to the keypoints of files and taken off results (D2 0.5).
    keypoint_offset: float = behaviour(0.0, not_negative)
    # Channels of an image, from 0, that pictures show: one, or three as RGB; (): the first three.
    shown_channels: tuple[int, ...] = free((), not_negative)


@dataclass
class TrainConfig:
    """Sampling, losses, optimizer and the loop."""

    steps: int = free(90_000, positive)  # fixed under "cosine", where every step's rate depends on it
    # Passes over the training images, with their repetitions, in place of steps; 0: steps.
    epochs: float = free(0.0, not_negative)
    batch_size: int = training(16, positive)  # images of a step, over all devices
    # Parts of a batch whose gradients are computed one after the other and added up, to save memory.
    accumulate: int = training(1, positive)
    # Devices that share each image, splitting its rows: for images too large for one device, and for more
    # devices than images. See docs/multi_host.md.
    spatial_devices: int = free(1, positive)
    seed: int = training(0, not_negative)

    # Optimizer: SGD with momentum, or AdamW (arXiv 1711.05101).
    optimizer: str = training("sgd", one_of("sgd", "adamw"))
    learning_rate: float = training(0.02, positive)  # after warm-up
    schedule: str = training("step", one_of("step", "cosine"))
    # Of "cosine": the rate that it ends at, as a share of learning_rate.
    cosine_end: float = training(0.0, share)
    # Of "step": where the rate is multiplied ...
    decay_steps: tuple[int, ...] = training((60_000, 80_000), positive)
    decay_factor: float = training(0.1, share)  # ... by this
    warmup_steps: int = training(1000, not_negative)
    warmup_factor: float = training(0.001, share)  # the rate of step 0, as a share of learning_rate
    warmup: str = training("linear", one_of("linear", "constant"))  # rising from this, or at it
    momentum: float = training(0.9, share)  # of SGD; beta 1 of AdamW
    nesterov: bool = training(False)  # SGD looks ahead by its momentum, as torch defines it
    adam_b2: float = training(0.999, share)  # of AdamW: decay of the mean of squared gradients, per step
    weight_decay: float = training(1e-4, not_negative)  # AdamW multiplies it by the learning rate
    weight_decay_norm: float = training(0.0, not_negative)  # on scales and offsets of normalisation (D2)
    # Largest norm of the whole gradient, norm of each array's, and size of each of its numbers; 0: any. D2's
    # CLIP_GRADIENTS are the latter two.
    clip_norm: float = training(0.0, not_negative)
    clip_array_norm: float = training(0.0, not_negative)
    clip_value: float = training(0.0, not_negative)
    # Patterns of names of arrays that are not trained, such as "backbone.*"; * stands for dots, too.
    frozen: tuple[str, ...] = training((), no_empty_item)
    # Likewise factors of the learning rate and of both weight decays, such as (("backbone.*", 0.1),); of
    # several patterns that match a name, the last one decides.
    rate_factors: tuple[tuple[str, float], ...] = training((), positive)
    weight_decay_factors: tuple[tuple[str, float], ...] = training((), not_negative)
    # Per step, of a moving average of the weights, which is then the run's model (0.9999 in timm; MMEngine's
    # momentum is 1 - this); 0: none.
    ema_decay: float = training(0.0, not_negative, below_one)
    # Batches over which trained batch norms get their statistics before each evaluation and at the end, in
    # place of running averages (D2 PRECISE_BN.NUM_ITER: 200); 0: none.
    precise_bn: int = free(0, not_negative)

    # Region proposals (Faster 3.1).
    rpn_positive_iou: float = training(0.7, share)
    rpn_negative_iou: float = training(0.3, share)
    rpn_samples: int = training(256, positive)  # anchors per image
    rpn_positive_fraction: float = training(0.5, share)
    rpn_pre_nms: int = training(2000, positive)  # proposals kept per level before suppression ...
    rpn_post_nms: int = training(1000, positive)  # ... and per image after it, or from data.train_proposals
    rpn_nms_iou: float = training(0.7, share)
    # Of the deltas ("smooth_l1") or of the boxes that they make: generalised (arXiv 1902.09630), distance- or
    # complete-IoU (arXiv 1911.08287).
    rpn_box_loss: str = training("smooth_l1", _box_loss)
    rpn_box_loss_weight: float = training(1.0, not_negative)  # factor of this loss, also as logged
    rpn_objectness_weight: float = training(1.0, not_negative)  # likewise of the loss of objectness
    rpn_beta: float = training(0.0, not_negative)  # smooth L1 below this is quadratic; 0: L1 (TV 1/9)
    # Of both losses: rpn_samples per image, or "sampled": those there were (TV).
    rpn_normalizer: str = training("fixed", one_of("fixed", "sampled"))

    # Heads (paper 3.1).
    roi_samples: int = training(512, positive)  # regions per image
    roi_positive_fraction: float = training(0.25, share)
    roi_positive_iou: float = training(0.5, share)
    roi_append_gt: bool = training(True)  # objects' own boxes are regions, too
    # As roi_positive_iou, of the heads of model.box_cascade: (.6, .7) in D2.
    cascade_positive_ious: tuple[float, ...] = training((), share)
    box_loss: str = training("smooth_l1", _box_loss)  # as rpn_box_loss
    box_loss_weight: float = training(1.0, not_negative)  # as rpn_box_loss_weight
    box_beta: float = training(0.0, not_negative)  # as rpn_beta (D2's keypoint models 0.5)
    # Federated loss (arXiv 2103.07461, section 5): the regions of an image train the sigmoids of this many
    # categories: its own, and others that each step draws anew; the background counts as one. 0: all. In D2
    # 50, for the images of a GPU together.
    federated_classes: int = training(0, not_negative)
    # How likely a category is drawn: the number of training images with it, to this power.
    federated_power: float = training(0.5, not_negative)
    # A cell's target is the mask's value there, not whether it is >= .5 (TV).
    mask_soft_targets: bool = training(False)
    # Factor of the keypoint loss, both in the total and as logged (D2 MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT).
    keypoint_weight: float = training(1.0, not_negative)
    # Divides it: the visible keypoints, or "fixed": those of roi_samples * roi_positive_fraction regions.
    keypoint_normalizer: str = training("visible", one_of("visible", "fixed"))
    # An anchor or region with this share inside a crowd is no negative.
    crowd_ioa: float = training(0.7, share)

    # Loop.
    log_every: int = free(20, positive)  # steps
    checkpoint_every: int = free(5000, positive)
    keep_checkpoints: int = free(3, positive)  # the latest; the best of those evaluated is kept besides
    eval_every: int = free(0, not_negative)  # steps between evaluations on the validation set; 0: none
    eval_images: int = free(0, not_negative)  # of the validation set, from its start; 0: all
    validation_loss: bool = free(False)  # evaluations measure the losses of these images, too
    # Evaluations in a row without a better mean score after which training ends; 0: it does not.
    stop_after: int = free(0, not_negative)


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


SETTINGS = settings_of(Config)
