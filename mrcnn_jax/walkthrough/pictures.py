"""The pictures of docs/how_it_works.md, one function each."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from mrcnn_jax.benchmarks.curves import Panel as Curves
from mrcnn_jax.inference.draw import COLORS, draw
from mrcnn_jax.ops.matching import Assignment
from mrcnn_jax.training.metrics import STAGES
from mrcnn_jax.walkthrough.drawing import BLUE, GREEN, RED, VIOLET, YELLOW, Panel, heat, sheet
from mrcnn_jax.walkthrough.regions import draw_align, draw_pool
from mrcnn_jax.walkthrough.stages import Stages

_SURE = 0.5  # score of the objects that are shown
_HALF, _THIRD = 312, 204  # pixels: the width of a panel of two, and of three, in a row
_SIDE = 64  # pixels of the image around an object
_LEVEL_COLOURS = (RED, BLUE, GREEN, YELLOW, VIOLET)
_CURVE_POINTS = 8


def canvas(stages: Stages) -> Image.Image:
    """The image as read, and on its canvas."""
    height, width = stages.image.shape[:2]
    padded = Panel(
        stages.canvas,
        scale=_HALF / stages.image.shape[1],
        title="on its canvas, {}x{}".format(*stages.canvas.shape[:2]),
    )
    padded.box((0, 0, width, height), YELLOW, width=3)
    read = Panel(stages.image, scale=_HALF / stages.image.shape[1], title=f"the image, {height}x{width}")
    return sheet([read, padded], columns=2)


def pyramid(stages: Stages) -> Image.Image:
    """How strong the features of every level are: the root of their mean square over the channels."""
    return sheet(
        [
            Panel(
                heat(np.sqrt(np.square(cells).mean(axis=-1))),
                scale=_THIRD / cells.shape[1],
                title="{}: {}x{} cells".format(level, *cells.shape[:2]),
            )
            for level, cells in stages.maps.items()
        ],
        columns=3,
    )


def anchors(stages: Stages) -> Image.Image:
    """The anchors of the cell nearest to the image's centre, on every level."""
    height, width = stages.image.shape[:2]
    margin = 80
    ground = np.full((height + 2 * margin, width + 2 * margin, 3), 235, np.uint8)
    ground[margin:-margin, margin:-margin] = stages.image
    panel = Panel(ground, scale=2.1)
    for (level, boxes), colour in zip(stages.anchors.items(), _LEVEL_COLOURS, strict=True):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = np.linalg.norm(centres - (width / 2, height / 2), axis=1)
        for box in boxes[np.isclose(distance, distance.min())][: len(stages.config.model.anchor_ratios)]:
            panel.box(box + margin, colour, width=3)
        panel.text(6, 6 + 16 * list(stages.anchors).index(level), level, colour)
    return panel.finish()


def objectness(stages: Stages) -> Image.Image:
    """The highest objectness of each cell's anchors, as a probability."""
    panels = []
    for level, logits in stages.objectness.items():
        cells = stages.maps[level]
        best = logits.reshape(*cells.shape[:2], -1).max(axis=-1)
        probability = 1 / (1 + np.exp(-best))
        panels.append(
            Panel(
                heat(probability, 0, 1),
                scale=_THIRD / cells.shape[1],
                title=f"{level}: at most {probability.max():.2f}",
            )
        )
    return sheet(panels, columns=3)


def proposals(stages: Stages) -> Image.Image:
    """The boxes of the RPN before and after suppression."""
    shown = 40
    panels = []
    for name, found in (("before NMS", stages.candidates), ("after NMS", stages.proposals)):
        order = np.argsort(-np.where(found.valid, found.scores, -np.inf))[:shown]
        panel = Panel(
            stages.image,
            scale=_HALF / stages.image.shape[1],
            title=f"best {shown} of {found.valid.sum()} {name}",
        )
        for index in order[::-1]:
            panel.box(found.boxes[index], BLUE if found.scores[index] < 0 else YELLOW)
        panels.append(panel)
    return sheet(panels, columns=2)


def levels(stages: Stages) -> Image.Image:
    """The detections, in the colour of the level that they are pooled from."""
    panel = Panel(stages.image, scale=5)
    for index in np.flatnonzero(stages.detections.scores >= _SURE):
        box, level = np.asarray(stages.detections.boxes[index]), int(stages.levels[index])
        panel.box(box, _LEVEL_COLOURS[level - 2], width=4)
        side = np.sqrt(np.prod(box[2:] - box[:2]))
        panel.text(box[0] + 1.5, box[1] + 1.5, f"p{level}, {side:.0f}", _LEVEL_COLOURS[level - 2])
    return panel.finish()


def regions(stages: Stages) -> Image.Image:
    """Where RoIPool and RoIAlign read the map for one region: the part of the map around it."""
    index = _largest(stages)
    level, size = int(stages.levels[index]), stages.config.model.box_pool_size
    stride, cells = 2**level, stages.maps[f"p{level}"]
    box = stages.detections.boxes[index]
    left, top = np.maximum(np.floor(box[:2] / stride).astype(int) - 1, 0)
    right, bottom = np.ceil(box[2:] / stride).astype(int) + 1
    part = heat(np.sqrt(np.square(cells).mean(axis=-1)))[top:bottom, left:right]
    options = {"stride": stride, "output_size": size, "scale": _HALF / part.shape[1]}
    box = box - np.tile([left, top], 2) * stride
    pool = draw_pool(part, box, **options)
    align = draw_align(part, box, points=stages.config.model.roi_sampling_ratio or 2, **options)
    return sheet([pool, align], columns=2)


def boxes(stages: Stages) -> Image.Image:
    """The regions that the box head calls an object, and what it makes of them."""
    sure = np.flatnonzero(stages.scores >= _SURE)
    panels: list[Panel] = []
    for title, rows in (("regions", stages.proposals.boxes), ("after the box head", stages.refined)):
        panel = Panel(
            stages.image,
            scale=_HALF / stages.image.shape[1],
            title=f"{len(sure)} {title}" if not panels else title,
        )
        for index in sure[::-1]:
            panel.box(rows[index], "#{:02x}{:02x}{:02x}".format(*COLORS[stages.labels[index] - 1]))
        panels.append(panel)
    return sheet(panels, columns=2)


def masks(stages: Stages) -> Image.Image:
    """Masks as the head gives them, 28 x 28 over the box, and pasted into the image."""
    chosen = _distinct(stages, 3)
    assert stages.detections.masks is not None and stages.result.masks is not None
    heads, pasted = [], []
    for index in chosen:
        mask = np.asarray(stages.detections.masks[index])
        name = stages.result.names[index]
        title = "{}: {}x{}".format(name, *mask.shape)
        heads.append(Panel(heat(mask, 0, 1), scale=_THIRD / len(mask), title=title))
        picture = stages.image.copy()
        inside = stages.result.masks[index]
        picture[inside] = (picture[inside] * 0.4 + np.array(COLORS[0]) * 0.6).astype(np.uint8)
        panel = Panel(
            _around(picture, stages.result.boxes[index]), scale=_THIRD / _SIDE, title="in the image"
        )
        pasted.append(panel)
    return sheet([*heads, *pasted], columns=len(chosen))


def keypoints(stages: Stages) -> Image.Image:
    """The heatmap of every keypoint of one figure, a softmax over its cells."""
    categories = stages.result.categories
    index = next(
        i for i in range(len(stages.result)) if stages.result.labels[i] in categories.keypoint_labels
    )
    logits = stages.keypoint_logits[index]
    weights = np.exp(logits - logits.max(axis=(0, 1)))
    panels = [
        Panel(heat(weights[..., k]), scale=_THIRD / len(weights), title=name.replace("_", " "))
        for k, name in enumerate(categories.keypoint_names)
    ]
    return sheet(panels, columns=3)


def result(stages: Stages) -> Image.Image:
    """What ``Result.plot`` draws."""
    return Image.fromarray(draw(stages.image, stages.result.above(_SURE)))


def targets(stages: Stages) -> Image.Image:
    """The anchors and the regions that a training step samples."""
    every = np.concatenate(list(stages.anchors.values()))
    anchors, regions = stages.anchor_targets, stages.region_targets
    panels = []
    for name, rows, assignment in (
        ("anchors", every[anchors.index], anchors.assignment),
        ("regions", regions.boxes, regions.assignment),
    ):
        positive, negative = (assignment == role for role in (Assignment.POSITIVE, Assignment.NEGATIVE))
        title = f"{name}: {positive.sum()} pos., {negative.sum()} neg."
        panel = Panel(stages.image, scale=_HALF / stages.image.shape[1], title=title)
        for chosen, colour in ((negative, RED), (positive, GREEN)):
            for box in rows[chosen]:
                panel.box(box, colour)
        panels.append(panel)
    return sheet(panels, columns=2)


def loss_curves(scalars: Mapping[str, Sequence[tuple[int, float]]]) -> list[Curves]:
    """The losses of every stage of a run, in means over parts of it that grow longer, for ``draw_panels``."""
    curves = {}
    for stage, names in STAGES.items():
        steps = np.array([step for step, _ in scalars[f"train/{names[0]}"]])
        values = np.sum([[value for _, value in scalars[f"train/{name}"]] for name in names], axis=0)
        edges = np.unique(np.geomspace(1, len(steps), _CURVE_POINTS).round().astype(int))
        parts = zip([0, *edges], edges, strict=False)
        curves[stage] = [(float(steps[end - 1]), float(values[start:end].mean())) for start, end in parts]
    return [Curves("losses by step", curves)]


PICTURES: dict[str, Callable[[Stages], Image.Image]] = {
    function.__name__: function
    for function in (
        canvas, pyramid, anchors, objectness, proposals, levels, regions, boxes, masks, keypoints, result,
        targets,
    )
}  # fmt: skip


def _around(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """``_SIDE x _SIDE`` pixels around the centre of a box, moved into the picture and padded."""
    centre = (box[:2] + box[2:]) / 2
    left, top = (
        int(np.clip(c - _SIDE / 2, 0, max(side - _SIDE, 0)))
        for c, side in zip(centre, picture.shape[1::-1], strict=True)
    )
    return picture[top : top + _SIDE, left : left + _SIDE]


def _largest(stages: Stages) -> int:
    """The index of the largest sure detection."""
    boxes = stages.detections.boxes
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * (stages.detections.scores >= _SURE)
    return int(areas.argmax())


def _distinct(stages: Stages, count: int) -> list[int]:
    """The best detections, at most one of each category."""
    first: dict[int, int] = {}
    for index, label in enumerate(stages.result.labels.tolist()):
        first.setdefault(label, index)
    return list(first.values())[:count]
