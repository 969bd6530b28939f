"""The largest values of the settings that memory grows with, and which canvases the model can be run on.

The largest values are far beyond any use, and keep a mistyped digit or the config of a stranger's run from
filling the memory before an error says why. All numbers of a setting are compared; the unit is the setting's.
"""

CANVAS_UNIT = 32  # pixels: the stride of p5, of which a canvas has a whole number of cells
# Pixels, the least height of a canvas that devices share: of a 3x3 convolution of a split map of two rows,
# jaxlib 0.10.2 computes a wrong gradient.
SHARED_HEIGHT = 128

_SIDE = 8192  # pixels, of an image or a canvas
_CONVS = 64
_POOL = 64  # cells per axis
_CHANNELS = 8192
_REGIONS = 100_000  # per image

# A setting may have this many values; COCO's recipes have up to 11 sizes and 5 canvases.
LONGEST = 1000

LIMITS = {
    "model.padding_multiple": _SIDE,
    "model.backbone_width": 1024,
    "model.backbone_groups": 1024,
    "model.backbone_group_width": 1024,
    "model.fpn_channels": _CHANNELS,
    "model.rpn_convs": _CONVS,
    "model.roi_sampling_ratio": _POOL,
    "model.box_pool_size": _POOL,
    "model.box_convs": _CONVS,
    "model.box_fcs": _CONVS,
    "model.box_channels": 65_536,
    "model.mask_pool_size": _POOL,
    "model.mask_convs": _CONVS,
    "model.mask_channels": _CHANNELS,
    "model.mask_fcs": _CONVS,
    "model.mask_fc_channels": 65_536,
    "model.keypoint_pool_size": _POOL,
    "model.keypoint_convs": _CONVS,
    "model.keypoint_channels": _CHANNELS,
    "data.train_short_sides": _SIDE,
    "data.test_short_side": _SIDE,
    "data.long_side": _SIDE,
    "data.train_long_side": _SIDE,
    "data.canvases": _SIDE,
    "data.max_objects": 100_000,
    "data.mask_grid": 4096,
    "data.scale_jitter": 100,
    "data.crop_size": _SIDE,
    "data.crop_short_sides": _SIDE,
    "train.batch_size": 1_000_000,
    "train.rpn_samples": 1_000_000,
    "train.rpn_pre_nms": _REGIONS,
    "train.rpn_post_nms": _REGIONS,
    "train.roi_samples": _REGIONS,
    "train.federated_classes": 100_000,
    "test.batch_size": 1_000_000,
    "test.rpn_pre_nms": _REGIONS,
    "test.rpn_post_nms": _REGIONS,
    "test.candidates": 1_000_000,
    "test.detections": 10_000,
    "test.scales": _SIDE,
    "test.scales_long_side": _SIDE,
}
