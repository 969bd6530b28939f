"""Pictures that are worth a look: what surprises, what went worst and what went best.

Each shows what is annotated, with the missed objects marked, beside what was found, with the false ones.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mrcnn_jax.evaluation.diagnosis import Fate
from mrcnn_jax.evaluation.mistakes import describe_mistake
from mrcnn_jax.evaluation.pictures import as_result, objects_of
from mrcnn_jax.inference.draw import Color, draw
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.report.outcome import Outcome
from mrcnn_jax.report.page import Html, Section, element, section
from mrcnn_jax.report.pictures import MOST_BYTES, Figure, figures

# Marks have words, too: colours alone would not do.
_FOUND: Color = (30, 144, 255)
_MISSED: Color = (255, 200, 20)
_FALSE: Color = (255, 64, 80)
_IGNORED: Color = (150, 160, 175)


def examples(outcome: Outcome, pixels: PixelFormat, *, count: int, root: Path) -> Section:
    """A section with ``count`` images of each kind at most, none of them twice.

    Images are named relative to ``root``, the folder of the data.
    """
    chosen = choose(outcome, count)
    total = sum(map(len, chosen.values()))
    parts: list[Html] = []
    for heading, explanation, indices in (
        (
            "Most surprising",
            "Detections of the highest scores that match no object: confident mistakes, or objects that are "
            "annotated wrongly or not at all.",
            chosen["surprising"],
        ),
        (
            "Categories with most mistakes",
            "Of each of them the image with most of its missed objects and false detections.",
            chosen["categories"],
        ),
        ("Worst", "Images of the lowest F1; of equal ones, those with most mistakes.", chosen["worst"]),
        ("Best", "Images of the highest F1; of equal ones, those with most objects.", chosen["best"]),
    ):
        parts += [element("h3", heading), element("p", explanation, class_="soft")]
        if not indices:
            parts.append(element("p", "None.", class_="soft"))
        items = [_figure(outcome, index, note, pixels, root) for index, note in indices]
        parts.append(figures(items, most_bytes=MOST_BYTES * len(items) // max(total, 1)))
    lead = element(
        "p",
        f"{total} of {len(outcome.source.ids):,} images, with detections of scores from {outcome.score:.2f}. "
        "Left what is annotated, right what was found: ",
        "blue is correct, yellow is missed, red is false, and gray does not count.",
    )
    return section("Pictures", lead, parts)


def choose(outcome: Outcome, count: int) -> dict[str, list[tuple[int, str]]]:
    """The indices of images to show, with notes: "surprising", then "categories", "worst" and "best".

    An image is chosen once: for the first of these.
    """
    found, missed, false = outcome.per_image()
    f1 = 2 * found / np.maximum(2 * found + missed + false, 1)
    has_any = found + missed + false > 0

    wrong = np.flatnonzero(outcome.false)
    by_score = wrong[np.argsort(-outcome.matches.scores[wrong], kind="stable")]
    surprising = list(dict.fromkeys(outcome.entry_images[by_score].tolist()))[:count]
    taken = set(surprising)
    of_categories = _images_of_categories(outcome, count, taken)
    taken |= {index for index, _ in of_categories}

    worst_first = np.lexsort((-(missed + false), f1))
    worst = [i for i in worst_first.tolist() if has_any[i] and f1[i] < 1 and i not in taken][:count]
    taken |= set(worst)
    best_first = np.lexsort((-found, -f1))
    best = [i for i in best_first.tolist() if found[i] and i not in taken][:count]
    return {
        "surprising": [(i, "") for i in surprising],
        "categories": of_categories,
        "worst": [(i, "") for i in worst],
        "best": [(i, "") for i in best],
    }


def _images_of_categories(outcome: Outcome, count: int, taken: set[int]) -> list[tuple[int, str]]:
    """For the ``count`` categories with most mistakes, the image not ``taken`` with most, and how many."""
    _, missed, false = outcome.per_label()
    chosen: list[tuple[int, str]] = []
    mistakes = missed + false
    for label in np.argsort(-mistakes, kind="stable").tolist():
        if len(chosen) == count or not mistakes[label]:
            break
        detections, objects = outcome.of_label(label)
        images = len(outcome.source.ids)
        missed_here = np.bincount(outcome.object_images[outcome.missed & objects], minlength=images)
        false_here = np.bincount(outcome.entry_images[outcome.false & detections], minlength=images)
        total = missed_here + false_here
        free = [i for i in np.argsort(-total, kind="stable").tolist() if i not in taken]
        if not free or not total[free[0]]:
            continue
        name = outcome.source.categories.names[label - 1]
        here = f"{missed_here[free[0]]} missed and {false_here[free[0]]} false"
        chosen.append((free[0], f"{name}: {here} of {missed[label]:,} and {false[label]:,}. "))
        taken = taken | {free[0]}
    return chosen


def _figure(outcome: Outcome, index: int, note: str, pixels: PixelFormat, root: Path) -> Figure:
    """Both pictures of an image; its caption begins with the ``note``."""
    source, kind = outcome.source, outcome.measured.kind
    size = tuple(source.sizes[index].tolist())
    image = source.read(index)
    picture = pixels.show(image.pixels)
    objects = objects_of(source, index)
    rows = np.flatnonzero(outcome.entry_images == index)
    rows = rows[outcome.matches.scores[rows] >= outcome.score]
    entries = [outcome.entries[row] for row in rows.tolist()]
    options: dict[str, Any] = {
        "masks": kind == "segm",
        "keypoints": any(entry.get("keypoints") for entry in entries),
    }
    first = int(np.searchsorted(outcome.object_images, index))
    places = range(first, first + len(objects))
    left = as_result(objects, size, source.categories, **options)
    right = as_result(entries, size, source.categories, **options)

    marks = [_mark_object(outcome, place) for place in places]
    texts = [prefix + name for (_, prefix), name in zip(marks, left.names, strict=True)]
    pictures = [(draw(picture, left, texts=texts, colors=[color for color, _ in marks]), "annotated")]
    marks = [_mark_detection(outcome, row) for row in rows.tolist()]
    texts = [
        f"{prefix}{name} {score:.2f}"
        for (_, prefix), name, score in zip(marks, right.names, right.scores.tolist(), strict=True)
    ]
    pictures.append((draw(picture, right, texts=texts, colors=[color for color, _ in marks]), "found"))

    name = _relative(image.name, root)
    found, missed, false = (values[index] for values in outcome.per_image())
    counts = f"{found} of {found + missed} objects found, {false} false"
    worst = max(rows[outcome.false[rows]].tolist(), key=lambda row: outcome.matches.scores[row], default=None)
    what = ""
    if worst is not None:
        names = dict(zip(source.categories.ids, source.categories.names, strict=True))
        entry = outcome.entries[worst]
        why = describe_mistake(entry, objects, "segm" if kind == "segm" else "bbox", names)
        what = f" Highest false: {names[entry['category_id']]} {entry['score']:.2f}, {why}."
    alternatives = [(shown, f"{name}, {what_is_shown}: {counts}") for shown, what_is_shown in pictures]
    return Figure(alternatives, [note, element("b", name), f" (image {source.ids[index]}): {counts}.{what}"])


def _mark_object(outcome: Outcome, place: int) -> tuple[Color, str]:
    if outcome.matches.objects[place] == Fate.IGNORED:
        return _IGNORED, "ignored: "
    return (_FOUND, "") if outcome.found[place] else (_MISSED, "missed: ")


def _mark_detection(outcome: Outcome, row: int) -> tuple[Color, str]:
    match outcome.matches.detections[row]:
        case Fate.MATCHED:
            return _FOUND, ""
        case Fate.UNMATCHED:
            return _FALSE, "false: "
    return _IGNORED, "ignored: "


def _relative(name: str, root: Path) -> str:
    path = Path(name)
    return str(path.relative_to(root)) if path.is_relative_to(root) else name
