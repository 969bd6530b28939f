"""Detectron2's published Mask, Cascade, Keypoint and Faster R-CNN, as rows for the zoo.

Source: ``MODEL_ZOO.md`` and the project ViTDet, June 2026. Left out are those of other data than COCO and
LVIS v1, which docs/zoo.md lists with their YAML files.
"""

from typing import Any

# Folder and name of a file, the number of its training and the first digits of its MD5, AP of boxes, masks
# and keypoints, the config here, changes to its model, and the step in the file's name if not the last.
Row = tuple[Any, ...]

# Configs of several models.
_LSJ = "mask_rcnn_r50_fpn_lsj_100ep"
_KEYPOINT = "keypoint_rcnn_r50_fpn_3x"
_CASCADE = "cascade_mask_rcnn_r50_fpn_3x"
_MASK_X101 = "mask_rcnn_x101_32x8d_fpn_3x"

# Changes to a config's model.
_NO_MASK = {"mask": False}
_R101 = {"backbone_depth": 101}
_UNIT_VARIANCE = {"backbone_stride_in_1x1": False, "pixel_std": (57.375, 57.12, 58.395)}
_X101 = _R101 | _UNIT_VARIANCE | {"backbone_groups": 32, "backbone_group_width": 8}

_DEFORMABLE = {"backbone_deformable": "plain"}
_NORMED_HEADS = {"box_convs": 4, "box_fcs": 1}
_GROUP_NORM = {
    **{f"{part}_norm": "group" for part in ("backbone", "fpn", "box", "mask")},
    **_NORMED_HEADS,
    "backbone_stride_in_1x1": False,
}
_BATCH_NORM = {f"{part}_norm": "batch" for part in ("backbone", "fpn", "box", "mask")} | _NORMED_HEADS
_FROM_SCRATCH = {"backbone_frozen_stages": 0}
_X152 = _X101 | {
    "backbone_depth": 152,
    "pixel_std": (1.0, 1.0, 1.0),
    **_DEFORMABLE,
    **_NORMED_HEADS,
    "box_norm": "group",
    "mask_convs": 8,
    "mask_norm": "group",
}
_REGNETX = _UNIT_VARIANCE | {"backbone": "regnetx_4gf"}
_REGNETY = _REGNETX | {"backbone": "regnety_4gf"}

# fmt: off
ROWS: tuple[Row, ...] = (
    *(("COCO-InstanceSegmentation", *row) for row in (
        ("mask_rcnn_R_50_C4_1x", "137259246/9243eb", (36.8, 32.2), "mask_rcnn_r50_c4_1x", {}),
        ("mask_rcnn_R_50_DC5_1x", "137260150/4f86c3", (38.3, 34.2), "mask_rcnn_r50_dc5_3x", {}),
        ("mask_rcnn_R_50_FPN_1x", "137260431/a54504", (38.6, 35.2), "mask_rcnn_r50_fpn_1x", {}),
        ("mask_rcnn_R_50_C4_3x", "137849525/4ce675", (39.8, 34.4), "mask_rcnn_r50_c4_3x", {}),
        ("mask_rcnn_R_50_DC5_3x", "137849551/84107b", (40.0, 35.9), "mask_rcnn_r50_dc5_3x", {}),
        ("mask_rcnn_R_50_FPN_3x", "137849600/f10217", (41.0, 37.2), "mask_rcnn_r50_fpn_3x", {}),
        ("mask_rcnn_R_101_C4_3x", "138363239/a2914c", (42.6, 36.7), "mask_rcnn_r50_c4_3x", _R101),
        ("mask_rcnn_R_101_DC5_3x", "138363294/0464b7", (41.9, 37.3), "mask_rcnn_r50_dc5_3x", _R101),
        ("mask_rcnn_R_101_FPN_3x", "138205316/a3ec72", (42.9, 38.6), "mask_rcnn_r101_fpn_3x", {}),
        ("mask_rcnn_X_101_32x8d_FPN_3x", "139653917/2d9806", (44.3, 39.5), _MASK_X101, {}),
    )),
    *(("new_baselines", *row) for row in (
        ("mask_rcnn_R_50_FPN_100ep_LSJ", "42047764/bb69de", (44.6, 40.3), _LSJ, {}),
        ("mask_rcnn_R_50_FPN_200ep_LSJ", "42047638/89a8d3", (46.3, 41.7), _LSJ, {}),
        ("mask_rcnn_R_50_FPN_400ep_LSJ", "42019571/14d201", (47.4, 42.5), _LSJ, {}),
        ("mask_rcnn_R_101_FPN_100ep_LSJ", "42025812/4f7b58", (46.4, 41.6), _LSJ, _R101),
        ("mask_rcnn_R_101_FPN_200ep_LSJ", "42131867/0bb7ae", (48.0, 43.1), _LSJ, _R101),
        ("mask_rcnn_R_101_FPN_400ep_LSJ", "42073830/f96b26", (48.9, 43.7), _LSJ, _R101),
        ("mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ", "42047771/b7fbab", (46.0, 41.3), _LSJ, _REGNETX),
        ("mask_rcnn_regnetx_4gf_dds_FPN_200ep_LSJ", "42132721/5d87c1", (48.1, 43.1), _LSJ, _REGNETX),
        ("mask_rcnn_regnetx_4gf_dds_FPN_400ep_LSJ", "42025447/f1362d", (48.6, 43.5), _LSJ, _REGNETX),
        ("mask_rcnn_regnety_4gf_dds_FPN_100ep_LSJ", "42047784/6ba57e", (46.1, 41.6), _LSJ, _REGNETY),
        ("mask_rcnn_regnety_4gf_dds_FPN_200ep_LSJ", "42047642/27b9c1", (47.8, 43.0), _LSJ, _REGNETY),
        ("mask_rcnn_regnety_4gf_dds_FPN_400ep_LSJ", "42045954/ef3a80", (48.2, 43.3), _LSJ, _REGNETY),
    )),
    *(("COCO-Keypoints", *row) for row in (
        ("keypoint_rcnn_R_50_FPN_1x", "137261548/04e291", (53.6, None, 64.0), _KEYPOINT, {}),
        ("keypoint_rcnn_R_50_FPN_3x", "137849621/a6e10b", (55.4, None, 65.5), _KEYPOINT, {}),
        ("keypoint_rcnn_R_101_FPN_3x", "138363331/997cc7", (56.4, None, 66.1), _KEYPOINT, _R101),
        ("keypoint_rcnn_X_101_32x8d_FPN_3x", "139686956/5ad38f", (57.3, None, 66.0), _KEYPOINT, _X101),
    )),
    *(("COCO-Detection", *row) for row in (
        ("faster_rcnn_R_50_C4_1x", "137257644/721ade", (35.7,), "mask_rcnn_r50_c4_1x", _NO_MASK),
        ("faster_rcnn_R_50_DC5_1x", "137847829/51d356", (37.3,), "mask_rcnn_r50_dc5_3x", _NO_MASK),
        ("faster_rcnn_R_50_FPN_1x", "137257794/b275ba", (37.9,), "mask_rcnn_r50_fpn_1x", _NO_MASK),
        ("faster_rcnn_R_50_C4_3x", "137849393/f97cb7", (38.4,), "mask_rcnn_r50_c4_3x", _NO_MASK),
        ("faster_rcnn_R_50_DC5_3x", "137849425/68d202", (39.0,), "mask_rcnn_r50_dc5_3x", _NO_MASK),
        ("faster_rcnn_R_50_FPN_3x", "137849458/280758", (40.2,), "mask_rcnn_r50_fpn_3x", _NO_MASK),
        ("faster_rcnn_R_101_C4_3x", "138204752/298dad", (41.1,), "mask_rcnn_r50_c4_3x", _NO_MASK | _R101),
        ("faster_rcnn_R_101_DC5_3x", "138204841/3e0943", (40.6,), "mask_rcnn_r50_dc5_3x", _NO_MASK | _R101),
        ("faster_rcnn_R_101_FPN_3x", "137851257/f6e8b1", (42.0,), "mask_rcnn_r101_fpn_3x", _NO_MASK),
        ("faster_rcnn_X_101_32x8d_FPN_3x", "139173657/68b088", (43.0,), _MASK_X101, _NO_MASK),
        ("fast_rcnn_R_50_FPN_1x", "137635226/e5f7ce", (37.8,), "fast_rcnn_r50_fpn_1x", {}),
    )),
    ("Misc", "mask_rcnn_R_50_FPN_1x_dconv_c3-c5", "138602867/65c703", (41.5, 37.5),
                "mask_rcnn_r50_fpn_1x", _DEFORMABLE),
    ("Misc", "mask_rcnn_R_50_FPN_3x_dconv_c3-c5", "144998336/821d0b", (42.7, 38.5),
                "mask_rcnn_r50_fpn_3x", _DEFORMABLE),
    ("Misc", "cascade_mask_rcnn_R_50_FPN_1x", "138602847/e9d89b", (42.1, 36.4), _CASCADE, {}),
    ("Misc", "cascade_mask_rcnn_R_50_FPN_3x", "144998488/480dd8", (44.3, 38.5), _CASCADE, {}),
    *(("Misc", *row) for row in (
        ("mask_rcnn_R_50_FPN_3x_gn", "138602888/dc5d9e", (42.6, 38.6), "mask_rcnn_r50_fpn_3x", _GROUP_NORM),
        ("mask_rcnn_R_50_FPN_3x_syncbn", "169527823/3b3c51", (41.9, 37.8), "mask_rcnn_r50_fpn_3x",
         _BATCH_NORM),
        ("scratch_mask_rcnn_R_50_FPN_3x_gn", "138602908/01ca85", (39.9, 36.6), "mask_rcnn_r50_fpn_3x",
         _GROUP_NORM | _FROM_SCRATCH),
        ("scratch_mask_rcnn_R_50_FPN_9x_gn", "183808979/da7b4c", (43.7, 39.6), "mask_rcnn_r50_fpn_3x",
         _GROUP_NORM | _FROM_SCRATCH | _UNIT_VARIANCE),
        ("scratch_mask_rcnn_R_50_FPN_9x_syncbn", "184226666/5ce33e", (43.6, 39.3), "mask_rcnn_r50_fpn_3x",
         _BATCH_NORM | _FROM_SCRATCH | _UNIT_VARIANCE),
        ("cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv", "18131413/e76410", (50.2, 44.0), _CASCADE, _X152,
         "0039999"),
    )),
    ("COCO-Detection", "rpn_R_50_C4_1x", "137258005/450694", (None,), "rpn_r50_c4_1x", {}),
    ("COCO-Detection", "rpn_R_50_FPN_1x", "137258492/02ce48", (None,), "rpn_r50_fpn_1x", {}),
)
# fmt: on

# The same of project ViTDet, whose folder is in the name and whose files have a config each.
# fmt: off
VITDET: tuple[Row, ...] = (
    ("COCO/mask_rcnn_vitdet_b", "f325346929/61ccd1", (51.6, 45.9), "mask_rcnn_vitdet_b_100ep"),
    ("COCO/mask_rcnn_vitdet_l", "f325599698/6146ed", (55.5, 49.2), "mask_rcnn_vitdet_l_100ep"),
    ("COCO/mask_rcnn_vitdet_h", "f329145471/7224f1", (56.7, 50.2), "mask_rcnn_vitdet_h_75ep"),
    ("COCO/cascade_mask_rcnn_vitdet_b", "f325358525/435fa9", (54.0, 46.7),
     "cascade_mask_rcnn_vitdet_b_100ep"),
    ("COCO/cascade_mask_rcnn_vitdet_l", "f328021305/1a9f28", (57.6, 50.0),
     "cascade_mask_rcnn_vitdet_l_100ep"),
    ("COCO/cascade_mask_rcnn_vitdet_h", "f328730692/f05665", (58.7, 51.0), "cascade_mask_rcnn_vitdet_h_75ep"),
    ("LVIS/mask_rcnn_vitdet_b", "329225748/5251c5", (40.2, 38.2), "mask_rcnn_vitdet_b_lvis_100ep"),
    ("LVIS/mask_rcnn_vitdet_l", "329211570/021b3a", (46.1, 43.6), "mask_rcnn_vitdet_l_lvis_100ep"),
    ("LVIS/mask_rcnn_vitdet_h", "332434656/866730", (49.1, 46.0), "mask_rcnn_vitdet_h_lvis_100ep"),
    ("LVIS/cascade_mask_rcnn_vitdet_b", "329226874/df306f", (43.0, 38.9),
     "cascade_mask_rcnn_vitdet_b_lvis_100ep"),
    ("LVIS/cascade_mask_rcnn_vitdet_l", "329042206/3e81c2", (49.2, 44.5),
     "cascade_mask_rcnn_vitdet_l_lvis_100ep"),
    ("LVIS/cascade_mask_rcnn_vitdet_h", "332552778/11bbb7", (51.5, 46.6),
     "cascade_mask_rcnn_vitdet_h_lvis_100ep"),
)
# fmt: on
