"""All tables of the paper, with the rows that are too large for the small scale, and how a row is trained."""

from typing import NamedTuple

from mrcnn_jax.paper.tables import BOX, BOX75, KEYPOINT, KEYPOINT75, MASK, MASK75, TABLES, Row


class FullTable(NamedTuple):
    """A table of the paper with all of its rows."""

    number: str
    title: str
    claim: str  # what the paper concludes from it
    rows: tuple[Row, ...]
    measured: str = ""  # how its numbers differ from what ``evaluate`` computes; "": they do not
    note: str = ""  # what the commands do that the paper does not say


_TEST_DEV = "on test-dev, while evaluate measures on val2017"

_FULL_ONLY = (
    FullTable(
        "1",
        "Masks",
        "Mask R-CNN outperforms the winners of COCO 2015 and 2016",
        (
            Row("R101-C4", "table1_r101_c4", {MASK: 33.1, MASK75: 34.8}),
            Row("R101-FPN", "table1_r101_fpn", {MASK: 35.7, MASK75: 37.8}),
            Row("X101-FPN", "table1_x101_fpn", {MASK: 37.1, MASK75: 39.4}),
        ),
    ),
    FullTable(
        "4",
        "Keypoints",
        "a model of boxes, masks and keypoints outperforms the winner of COCO 2016",
        (
            Row("keypoints", "table4_keypoints", {KEYPOINT: 62.7, KEYPOINT75: 68.4}),
            Row("keypoints and masks", "table4_keypoints_masks", {KEYPOINT: 63.1, KEYPOINT75: 68.7}),
        ),
    ),
    FullTable(
        "7",
        "Cityscapes",
        "training on COCO first helps most where there is little data",
        (
            Row("from ImageNet", "table7_fine", {MASK: 31.5}),
            Row("from COCO", "table7_coco", {MASK: 36.4}),
        ),
        "by Cityscapes' own metric, while evaluate computes COCO's",
    ),
    FullTable(
        "8",
        "Masks and boxes, improved step by step",
        "longer and joint training, more data, deeper networks and augmentation add up",
        (
            Row(
                "original baseline",
                "table8_1_original",
                {MASK: 36.7, MASK75: 38.9, BOX: 39.6, BOX75: 43.2},
            ),
            Row(
                "updated baseline",
                "table8_2_updated",
                {MASK: 37.0, MASK75: 39.0, BOX: 40.5, BOX75: 43.7},
            ),
            Row(
                "RPN trained with the heads",
                "table8_3_end_to_end",
                {MASK: 37.6, MASK75: 39.9, BOX: 41.7, BOX75: 45.2},
            ),
            Row(
                "ImageNet-5k",
                "table8_4_imagenet_5k",
                {MASK: 38.6, MASK75: 40.9, BOX: 42.7, BOX75: 46.6},
            ),
            Row(
                "augmentation in training",
                "table8_5_train_augmentation",
                {MASK: 39.2, MASK75: 41.6, BOX: 43.5, BOX75: 47.2},
            ),
            Row(
                "152 layers",
                "table8_6_deeper",
                {MASK: 39.7, MASK75: 42.2, BOX: 44.1, BOX75: 48.4},
            ),
            Row(
                "non-local block",
                "table8_7_non_local",
                {MASK: 40.3, MASK75: 42.8, BOX: 45.0, BOX75: 48.9},
            ),
            Row(
                "augmentation in testing",
                "table8_8_test_augmentation",
                {MASK: 41.8, MASK75: 44.8, BOX: 47.3, BOX75: 51.5},
            ),
        ),
    ),
    FullTable(
        "9",
        "Keypoints, improved step by step",
        "the same steps add up for keypoints, and data distillation helps, too",
        (
            Row("original baseline", "table9_1_original", {KEYPOINT: 64.2, KEYPOINT75: 69.7}),
            Row("updated baseline", "table9_2_updated", {KEYPOINT: 65.1, KEYPOINT75: 70.9}),
            Row("101 layers", "table9_3_deeper", {KEYPOINT: 66.1, KEYPOINT75: 71.7}),
            Row("ResNeXt", "table9_4_resnext", {KEYPOINT: 67.3, KEYPOINT75: 73.3}),
            Row("data distillation", "table9_5_data_distillation", {KEYPOINT: 69.1, KEYPOINT75: 75.3}),
            Row("augmentation in testing", "table9_6_test_augmentation", {KEYPOINT: 70.4, KEYPOINT75: 76.8}),
        ),
        note="After row 1 the RPN is trained with the heads; the paper does not say how it was trained.",
    ),
)

_MORE_ROWS = {
    "2a": (Row("X101-FPN", "table2a_x101_fpn", {MASK: 36.7}),),
    "3": (Row("Mask R-CNN, X101-FPN", "table3_mask_x101_fpn", {BOX: 39.8, BOX75: 43.4}),),
}

_ALL = (
    *_FULL_ONLY,
    *(
        FullTable(table.number, table.title, table.claim, (*table.rows, *_MORE_ROWS.get(table.number, ())))
        for table in TABLES.values()
    ),
)

FULL_TABLES = {
    table.number: table._replace(measured=_TEST_DEV) if table.number in ("1", "3", "4") else table
    for table in sorted(_ALL, key=lambda table: table.number)
}

# Rows whose RPN is trained with the heads: in table 8 from the third on (appendix B). It does not say how
# those of table 9 were trained, but a model that annotates images needs an RPN of its own.
END_TO_END = frozenset(
    row.config for table, first in (("8", 2), ("9", 1)) for row in FULL_TABLES[table].rows[first:]
)
# Rows that begin from another one's model, in place of a backbone.
BEGINS_FROM = {"table7_coco": "table2a_r50_fpn"}
# Rows that train on images which another one's model annotates.
TEACHERS = {"table9_5_data_distillation": "table9_4_resnext"}
# Rows whose backbone was not published, and whose settings are those of the row above.
UNPUBLISHED = frozenset({"table8_4_imagenet_5k"})
