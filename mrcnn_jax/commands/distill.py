"""Makes annotations for unlabelled images of what a model found in them, to train on (data distillation).

    mrcnn-jax predict --workdir=runs/teacher --output=out --pictures=none \\
        --config.test.scales="(400, 600, 800, 1000, 1200)" --config.test.flip \\
        --annotations=image_info_unlabeled2017.json unlabeled2017
    mrcnn-jax distill --results=out/detections.json --images=image_info_unlabeled2017.json \\
        --like=person_keypoints_train2017.json --output=person_keypoints_unlabeled2017.json

Of each category the objects with the highest scores are kept, as many per image as --like has on average; or
those of at least --min_score. The result is a COCO file with boxes, masks and keypoints. --images may also be
what predict --save_dataset writes for a folder of photos. See docs/data.md for that, and for training on the
result together with the labelled images.
"""

from pathlib import Path

from absl import flags

from mrcnn_jax import command_line

_RESULTS = flags.DEFINE_string(
    "results", None, "COCO results list, such as the detections.json of mrcnn-jax predict", required=True
)
_IMAGES = flags.DEFINE_string(
    "images", None, "COCO file with the 'images', such as image_info_unlabeled2017.json", required=True
)
_LIKE = flags.DEFINE_string(
    "like", None, "COCO file of labelled images: its categories, and its mean number of objects per image"
)
_MIN_SCORE = flags.DEFINE_float(
    "min_score", None, "keep the objects with at least this score, in place of numbers like those of --like"
)
_OUTPUT = flags.DEFINE_string("output", None, "COCO file to write; must not exist", required=True)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    command_line.check_output("output", output)
    if output.exists():
        raise ValueError(f"--output={output}: exists; it is not overwritten")
    from mrcnn_jax.data.distill import distill
    from mrcnn_jax.data.findings import printable
    from mrcnn_jax.data.importers.write import write_new

    made = distill(
        Path(_RESULTS.value),
        Path(_IMAGES.value),
        like=Path(_LIKE.value) if _LIKE.value else None,
        min_score=_MIN_SCORE.value,
    )
    if not made.content["annotations"]:
        raise ValueError(f"{_RESULTS.value}: no object is kept")
    write_new(output, made.content)
    rows = [("category", "found", "wanted", "score", "kept")]
    rows += [
        (
            printable(item.name),
            str(item.found),
            "-" if item.wanted is None else str(item.wanted),
            "-" if item.threshold is None else f"{item.threshold:.4f}",
            str(item.kept),
        )
        for item in made.selections
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        texts = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *texts]))
    for what, count in sorted(made.left_out.items()):
        print(f"left out: {what} ({count})")
    images, objects = (len(made.content[section]) for section in ("images", "annotations"))
    print(f"{output}: {images} images, {objects} objects, {objects / images:.2f} per image")
