"""Makes one HTML file of what a trained run does: metrics, mistakes, pictures and curves of its training.

    mrcnn-jax report --workdir=runs/shapes
    mrcnn-jax report --workdir=runs/coco --config.data.root=/data/coco --detections=found.json
    mrcnn-jax report --workdir=runs/new --compare=runs/old/report.detections.json
    mrcnn-jax report --workdir=torchvision/mask_rcnn_r50_fpn --config.data.root=/data/coco --output=r50.html

Writes report.html to the run's directory, or --output, replacing an existing report; a browser opens it from
disk, and it loads nothing from elsewhere. It has the tables of mrcnn-jax evaluate, with the AP of published
models of the same network beside them, TIDE's errors, precision over recall and over the score, categories,
confusions, calibration, the images that surprise most, went worst and went best, and losses and learning
rates. docs/report.md describes them.

The run is evaluated once; what it found is kept beside the report as report.detections.json. --detections
takes what mrcnn-jax evaluate --save_detections wrote instead. Data and settings of tests are changed as in
mrcnn-jax evaluate. Of a region proposal network alone, the report has the average recall.
"""

from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config.paths import check_data_paths
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import find_model, run_config

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the trained run, or a published model's name (docs/zoo.md)", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "HTML file to write; report.html in --workdir if not given (a published model needs --output)",
)
_DETECTIONS = flags.DEFINE_string(
    "detections", None, "COCO results list of the validation images; without it, the run is evaluated"
)
_COMPARE = flags.DEFINE_string(
    "compare", None, "COCO results list of the same images, such as an earlier run's, to compare AP with"
)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images per batch; the run's if not given", lower_bound=1
)
_SCORE = flags.DEFINE_float(
    "score",
    None,
    "lowest score of the detections in counts, confusions and pictures; that of the largest F1 if not given",
    lower_bound=0,
    upper_bound=1,
)
_PICTURES = flags.DEFINE_integer("pictures", 8, "images of each kind to show", lower_bound=0, upper_bound=50)


def main(_: list[str]) -> None:
    if not _OUTPUT.value and find_model(_WORKDIR.value):
        raise ValueError(
            f"--output is missing: {_WORKDIR.value} is a published model, not a directory to write into"
        )
    config = _override(run_config(_WORKDIR.value))
    check_data_paths(config, "val")
    output = Path(_OUTPUT.value or Path(_WORKDIR.value) / "report.html")
    command_line.check_output("output", output)
    detections = Path(_DETECTIONS.value) if _DETECTIONS.value else None
    if detections is not None and _STEP.value is not None:
        raise ValueError(f"--step and --detections={detections} exclude each other")
    inputs = {Path(file).resolve() for file in (_DETECTIONS.value, _COMPARE.value) if file}
    if output.resolve() in inputs:
        raise ValueError(f"{output} is an input and would be overwritten; choose another --output")
    if output.suffix not in (".html", ".htm"):
        raise ValueError(f"--output={output}: must end in .html, so that a browser opens it")
    setup()
    from mrcnn_jax.evaluation.table import format_metrics
    from mrcnn_jax.report.run_report import write_report

    metrics = write_report(
        _WORKDIR.value,
        output,
        step=_STEP.value,
        config=config,
        detections=detections,
        compare=_COMPARE.value,
        batch_size=_BATCH_SIZE.value,
        score=_SCORE.value,
        pictures=_PICTURES.value,
        progress=True,
    )
    print(f"{format_metrics(metrics)}\n\nwritten to {output}")
