"""Reports on a run: ``write_report`` makes one HTML file of its metrics, mistakes, pictures and training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mrcnn_jax import __version__
from mrcnn_jax.config import Config
from mrcnn_jax.config.io import differences
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.data.own import Dataset, as_source
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.coco_eval import check_source
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.evaluation.measured import as_metrics, kinds_of, measure, unique_names
from mrcnn_jax.evaluation.proposal_recall import evaluate_proposals
from mrcnn_jax.evaluation.saved import read_saved
from mrcnn_jax.inference.proposer import load_proposer
from mrcnn_jax.json_files import replacing
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.report import metrics as sections
from mrcnn_jax.report.charts import counted
from mrcnn_jax.report.comparison import comparison
from mrcnn_jax.report.confusions import confusions
from mrcnn_jax.report.examples import examples
from mrcnn_jax.report.kept import detections_of, kept_detections
from mrcnn_jax.report.outcome import outcome
from mrcnn_jax.report.page import Section, element, page, section
from mrcnn_jax.report.published import published_like
from mrcnn_jax.report.tables import facts
from mrcnn_jax.report.training import training
from mrcnn_jax.runs.checkpoint import step_of_weights
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.runs.scalars import read_scalars
from mrcnn_jax.weights.zoo import workdir_of

PICTURES = 8  # of each kind, by default


@dataclass(frozen=True, eq=False)
class _Results:
    """What was measured, as sections of the page."""

    parts: list[Section]
    metrics: dict[str, dict[str, Any]]


def write_report(
    workdir: str | Path,
    output: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    source: DataSource | Dataset | None = None,
    config: Config | None = None,
    detections: str | Path | None = None,
    compare: str | Path | None = None,
    batch_size: int | None = None,
    score: float | None = None,
    pictures: int = PICTURES,
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Writes the report on a run, or on a published model, to the HTML file ``output``; returns its metrics.

    They are those of ``evaluate``. The file needs nothing else: a browser opens it from disk.

    Args:
        workdir: the run's directory, or a published model's name (docs/zoo.md).
        output: the file; an existing one is replaced.
        step: the step of the checkpoint, or "best"; None: the newest.
        source: the images and objects; None: the validation data of the config.
        config: replaces the run's, for example for other data.
        detections: a COCO results list of these images, as ``evaluate`` writes it to ``detections_file``.
            None: what the checkpoint finds, which is kept beside ``output`` for the next report.
        compare: a COCO results list of the same images to compare with, such as that of an earlier run.
        batch_size: images per batch; None: ``config.test.batch_size``.
        score: the lowest score of the detections in counts, confusions and pictures; None: that of the
            largest F1.
        pictures: images of each kind to show, at most.
        progress: whether to show progress bars.

    Of a run without heads the report has the recall of its proposals. Raises the errors of ``evaluate`` and
    of ``read_saved``, and ValueError for ``detections`` or ``compare`` with a run without heads, and if
    ``compare`` is where this report's own detections are kept.
    """
    workdir, output = workdir_of(workdir), Path(output)
    run = read_run(workdir)
    config = run.config if config is None else config
    pixels = PixelFormat.of(config)
    opened = (
        open_validation_source(config) if source is None else as_source(source, mask_grid=0, pixels=pixels)
    )
    batch_size = batch_size or config.test.batch_size
    if config.model.box:
        check_source(config, run.categories, opened)
    elif (given := detections or compare) is not None:
        raise ValueError(
            f"{given}: {workdir} is a region proposal network alone (model.box is False), which has "
            "proposals but no detections"
        )
    if detections is not None:
        measured_step, what = None, f"The detections in {detections}"
    else:
        kept = detections_of(output)[0]
        if compare is not None and Path(compare).resolve() == kept.resolve():
            raise ValueError(f"{compare}: is where this report's own detections go; choose another --output")
        measured_step = step_of_weights(workdir, step)
        what = f"Step {measured_step:,}"
        if config.model.box:
            detections = kept_detections(
                workdir, config, opened, output, step=measured_step, batch_size=batch_size, progress=progress
            )
    if detections is not None:
        results = _results(
            config,
            opened,
            Path(detections),
            compare=None if compare is None else Path(compare),
            score=score,
            pictures=pictures,
        )
    else:
        proposer = load_proposer(workdir, step=measured_step, batch_size=batch_size, config=config)
        metrics = evaluate_proposals(proposer, opened, progress=progress)
        results = _Results([sections.recall(metrics["proposals"], _data(opened))], metrics)

    parts = list(results.parts)
    if (curves := training(read_scalars(workdir / "tensorboard"), measured_step)) is not None:
        parts.append(curves)
    parts.append(_settings(config))
    title = f"Report on {workdir.resolve().name}"
    lead = element("p", f"{what} of {workdir}, measured on {opened.name}")
    with replacing(output) as unfinished:
        unfinished.write_text(page(title, lead, parts), encoding="utf-8")
    return results.metrics


def _results(
    config: Config,
    source: DataSource,
    detections: Path,
    *,
    compare: Path | None,
    score: float | None,
    pictures: int,
) -> _Results:
    kinds = kinds_of(config, source)
    entries = read_saved(detections, source, kinds)
    truth = ground_truth(source)
    measured = [measure(truth, entries, kind, source) for kind in kinds]
    metrics = as_metrics(measured, source)
    by_kind = {item.kind: item for item in measured}
    judged = outcome(source, entries, by_kind.get("segm", by_kind["bbox"]), score)
    names = unique_names(source.categories)
    compared = sections.comparison(measured, len(source.ids), lvis=source.federated is not None)
    said = [*_data(source), f"{counted(len(entries), 'detection')}.", compared]
    parts = [
        sections.overview(metrics, published_like(config, source.categories), said, len(source.ids)),
        sections.errors(measured),
        sections.curves(measured, judged, names),
        sections.categories(measured, judged, names),
    ]
    if compare is not None:
        others = read_saved(compare, source, kinds)
        before = [measure(truth, others, kind, source) for kind in kinds]
        parts.insert(1, comparison(measured, before, names, file=str(compare)))
    if len(names) > 1:
        parts.append(confusions(judged, names))
    parts.append(sections.calibration(measured))
    if pictures:
        parts.append(examples(judged, PixelFormat.of(config), count=pictures, root=Path(config.data.root)))
    return _Results(parts, metrics)


def _data(source: DataSource) -> list[str]:
    """Sentences about the images that are measured on."""
    annotations = [item for index in range(len(source.ids)) for item in source.annotations(index)]
    crowds = sum(item.crowd for item in annotations)
    objects = counted(len(annotations) - crowds, "object")
    categories = counted(len(source.categories), "category", "categories")
    sentences = [f"{counted(len(source.ids), 'image')} with {objects} of {categories}."]
    if crowds:
        in_them, do = ("in it", "does") if crowds == 1 else ("in them", "do")
        sentences.append(f"{counted(crowds, 'crowd')}, and what is found {in_them}, {do} not count.")
    return sentences


def _settings(config: Config) -> Section:
    text = f"config.json in the run has all settings; this report was made by mrcnn_jax {__version__}."
    rows = [(name, str(value)) for name, (value, _) in differences(config, Config()).items()]
    heading = element("summary", f"{len(rows)} that differ from the defaults")
    return section("Settings", element("p", text), element("details", heading, facts(rows)))
