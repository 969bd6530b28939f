"""Draws training batches after augmentation, and counts the training set's objects.

    mrcnn-jax show --config=shapes --output=out
    mrcnn-jax show --config=shapes --output=out --html

Writes out/batches.png, replacing an existing one: --count padded images, from the batch of --step on, with
boxes, masks, keypoints, crowds (striped) and padding (a checkerboard), after all augmentation of config.data
and, with --augment=FILE.py:FUNCTION, one's own (docs/data.md). If the data are a folder, damaged entries are
listed first, as in training: as an error, or with --config.data.skip_bad as left out.

With --html it also writes out/data.html, which a browser opens from disk: counts by category, sizes and
shapes of objects, objects of an image, findings and the same pictures (docs/report.md).
"""

from itertools import islice
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config.paths import check_data_paths

_config = command_line.define_config()
_OUTPUT = flags.DEFINE_string("output", None, "folder to write batches.png into", required=True)
_DATA = flags.DEFINE_string(
    "data", None, "folder of images in COCO format, in any usual layout: sets the paths of config.data"
)
_COUNT = flags.DEFINE_integer("count", 24, "images to draw", lower_bound=1)
_HTML = flags.DEFINE_bool("html", False, "also write data.html, a page with charts and the pictures")
_augment = command_line.define_augment()
_STEP = flags.DEFINE_integer("step", 0, "training step of the first batch to draw", lower_bound=0)


def main(_: list[str]) -> None:
    config = _config()
    if _DATA.value:
        from mrcnn_jax.data.folders import with_layout

        config = with_layout(config, _DATA.value)
    check_data_paths(config, "train")
    output = Path(_OUTPUT.value)
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"--output={output}: {existing} is not a folder")
    augment = _augment()
    from PIL import Image
    from tqdm import tqdm

    from mrcnn_jax.data.augmented import mean_colour
    from mrcnn_jax.data.findings import printable, summary
    from mrcnn_jax.data.open_data_source import open_data_source
    from mrcnn_jax.data.pipeline import training_batches
    from mrcnn_jax.data.selection import describe_selection
    from mrcnn_jax.data.summary import format_summary, summarise
    from mrcnn_jax.pixels import PixelFormat
    from mrcnn_jax.training.show import caption_batch, contact_sheet, draw_batch

    source = open_data_source(config)
    if source.findings:
        print(summary(source.findings), flush=True)
    batches = training_batches(
        source,
        config.data,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=_STEP.value,
        masks=config.model.mask,
        keypoints=config.model.keypoint,
        augment=augment,
        fill=mean_colour(config.model),
        pixels=PixelFormat.of(config),
    )

    indices = tqdm(range(len(source.ids)), unit="image", leave=False, disable=None)
    statistics = summarise(source, config.data, keypoints=config.model.keypoint, indices=indices)
    print(format_summary(statistics), flush=True)
    selection = describe_selection(source, config.data, keypoints=config.model.keypoint)
    for line in selection:
        print(line, flush=True)

    pictures, captions = [], []
    num_batches = -(-_COUNT.value // config.train.batch_size)
    for step, batch in enumerate(islice(batches, num_batches), start=_STEP.value):
        pictures += draw_batch(batch, source.categories, PixelFormat.of(config))
        captions += caption_batch(batch, step)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "batches.png"
    Image.fromarray(contact_sheet(pictures[: _COUNT.value], captions[: _COUNT.value])).save(path)
    print(f"\n{printable(str(path))}: {_COUNT.value} images from step {_STEP.value} on")
    if _HTML.value:
        from mrcnn_jax.report.data_report import write_data_report

        shown = list(zip(pictures, captions, strict=True))[: _COUNT.value]
        write_data_report(
            output / "data.html",
            statistics,
            findings=source.findings,
            selection=selection,
            pictures=shown,
        )
        print(f"{printable(str(output / 'data.html'))}: the same as a page, with charts")
