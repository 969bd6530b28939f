"""The paper's tables that can be reproduced at small scale: their rows, its numbers, and what it concludes.

``configs/paper`` also has the rows of the other tables. The metrics of a table were fixed before its rows
were first trained.
"""

from typing import NamedTuple

PERSON = "figure"  # the category of the drawn shapes that stands for COCO's persons


class Metric(NamedTuple):
    """One of COCO's metrics, as ``evaluate`` names it."""

    kind: str  # "bbox", "segm" or "keypoints"
    name: str  # "AP", "AP75"; only "AP" of a category
    category: str = ""  # at small scale; "": all

    def __str__(self) -> str:
        kind = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}[self.kind]
        return f"{kind} {self.name}"


BOX, BOX75 = Metric("bbox", "AP"), Metric("bbox", "AP75")
MASK, MASK75 = Metric("segm", "AP"), Metric("segm", "AP75")
KEYPOINT, KEYPOINT75 = Metric("keypoints", "AP"), Metric("keypoints", "AP75")
PERSON_BOX, PERSON_MASK = Metric("bbox", "AP", PERSON), Metric("segm", "AP", PERSON)


class Row(NamedTuple):
    """A row of a table: a file of ``configs/paper``, and the paper's numbers, in percent."""

    label: str
    config: str
    paper: dict[Metric, float]


class Comparison(NamedTuple):
    """Two rows, by their labels, that the paper compares."""

    row: str
    reference: str
    on_par: bool = False  # the paper calls them so; otherwise its numbers say which is better


class Table(NamedTuple):
    """A table of the paper, or the numbers that stand in its text."""

    number: str
    title: str
    claim: str  # what the paper concludes from it
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]  # by all metrics that both rows have

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of its rows, in order."""
        return tuple(dict.fromkeys(metric for row in self.rows for metric in row.paper))


_ALL = (
    Table(
        "2a",
        "Backbones",
        "deeper networks and FPN are better",
        (
            Row("R50-C4", "table2a_r50_c4", {MASK: 30.3}),
            Row("R101-C4", "table2a_r101_c4", {MASK: 32.7}),
            Row("R50-FPN", "table2a_r50_fpn", {MASK: 33.6}),
            Row("R101-FPN", "table2a_r101_fpn", {MASK: 35.4}),
        ),
        (
            Comparison("R101-C4", "R50-C4"),
            Comparison("R50-FPN", "R50-C4"),
            Comparison("R101-FPN", "R50-FPN"),
            Comparison("R101-FPN", "R101-C4"),
        ),
    ),
    Table(
        "2b",
        "A softmax over categories, or a sigmoid for each",
        "masks of different categories need not compete; one for all of them is nearly as good",
        (
            Row("softmax", "table2b_softmax", {MASK: 24.8, MASK75: 25.1}),
            Row("sigmoid", "table2b_sigmoid", {MASK: 30.3, MASK75: 31.5}),
            Row("class-agnostic", "agnostic", {MASK: 29.7}),
        ),
        (
            Comparison("sigmoid", "softmax"),
            Comparison("class-agnostic", "sigmoid", on_par=True),
        ),
    ),
    Table(
        "2c",
        "RoIPool, RoIWarp and RoIAlign (C4, stride 16)",
        "alignment is what matters: RoIWarp, which rounds as RoIPool does, gains little",
        (
            Row("RoIPool", "table2c_roi_pool", {MASK: 26.9, MASK75: 26.4}),
            Row("RoIWarp, max", "table2c_roi_warp_max", {MASK: 27.2, MASK75: 27.1}),
            Row("RoIWarp, mean", "table2c_roi_warp", {MASK: 27.1, MASK75: 27.1}),
            Row("RoIAlign, max", "table2c_roi_align_max", {MASK: 30.2, MASK75: 31.8}),
            Row("RoIAlign, mean", "table2c_roi_align", {MASK: 30.3, MASK75: 31.5}),
        ),
        (
            Comparison("RoIAlign, mean", "RoIPool"),
            Comparison("RoIAlign, mean", "RoIWarp, mean"),
            Comparison("RoIAlign, max", "RoIWarp, max"),
            Comparison("RoIWarp, mean", "RoIPool", on_par=True),
            Comparison("RoIWarp, max", "RoIPool", on_par=True),
            Comparison("RoIAlign, max", "RoIAlign, mean", on_par=True),
        ),
    ),
    Table(
        "2d",
        "RoIPool and RoIAlign at a stride of 32 (C5)",
        "the coarser the map, the more alignment gains, and most in AP75",
        (
            Row("RoIPool", "table2d_roi_pool", {MASK: 23.6, MASK75: 21.6, BOX: 28.2, BOX75: 26.9}),
            Row("RoIAlign", "table2d_roi_align", {MASK: 30.9, MASK75: 32.1, BOX: 34.0, BOX75: 36.4}),
        ),
        (Comparison("RoIAlign", "RoIPool"),),
    ),
    Table(
        "2e",
        "Masks from fully connected layers, or from convolutions",
        "convolutions keep the layout of a region",
        (
            Row("MLP, 2 hidden layers", "table2e_mlp_2", {MASK: 31.5, MASK75: 32.8}),
            Row("MLP, 3 hidden layers", "table2e_mlp_3", {MASK: 31.5, MASK75: 32.6}),
            Row("FCN", "table2e_fcn", {MASK: 33.6, MASK75: 35.3}),
        ),
        (
            Comparison("FCN", "MLP, 2 hidden layers"),
            Comparison("FCN", "MLP, 3 hidden layers"),
            Comparison("MLP, 3 hidden layers", "MLP, 2 hidden layers", on_par=True),
        ),
    ),
    Table(
        "3",
        "Boxes without and with the mask branch (R101-FPN)",
        "training masks, too, gives better boxes",
        (
            Row("Faster R-CNN, RoIAlign", "table3_faster_r101_fpn", {BOX: 37.3, BOX75: 40.3}),
            Row("Mask R-CNN", "table3_mask_r101_fpn", {BOX: 38.2, BOX75: 41.7}),
        ),
        (Comparison("Mask R-CNN", "Faster R-CNN, RoIAlign"),),
    ),
    Table(
        "5",
        "Boxes, masks and keypoints of persons, learned together",
        "masks help boxes; keypoints cost a little box and mask AP, and gain from masks",
        (
            Row("Faster R-CNN", "table5_faster", {PERSON_BOX: 52.5}),
            Row("with masks", "table5_masks", {PERSON_BOX: 53.6, PERSON_MASK: 45.8}),
            Row("with keypoints", "table5_keypoints", {PERSON_BOX: 50.7, KEYPOINT: 64.2}),
            Row(
                "with both",
                "table5_keypoints_masks",
                {PERSON_BOX: 52.0, PERSON_MASK: 45.1, KEYPOINT: 64.7},
            ),
        ),
        (
            Comparison("with masks", "Faster R-CNN"),
            Comparison("with keypoints", "Faster R-CNN"),
            Comparison("with both", "with masks"),
            Comparison("with both", "with keypoints"),
        ),
    ),
    Table(
        "6",
        "Keypoints with RoIPool and RoIAlign (FPN)",
        "alignment matters for keypoints, even with a stride of 4",
        (
            Row("RoIPool", "table6_roi_pool", {KEYPOINT: 59.8, KEYPOINT75: 66.7}),
            Row("RoIAlign", "table6_roi_align", {KEYPOINT: 64.2, KEYPOINT75: 69.7}),
        ),
        (Comparison("RoIAlign", "RoIPool"),),
    ),
)

TABLES = {table.number: table for table in _ALL}
