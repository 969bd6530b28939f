"""The detections of a run that a report is made of: found once, and kept beside it for the next one."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mrcnn_jax.config import Config
from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.io import flatten
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.coco_eval import evaluate
from mrcnn_jax.inference.detector import load
from mrcnn_jax.json_files import dumps, read_json, replacing, write_json
from mrcnn_jax.runs.checkpoint import time_of_weights


def detections_of(output: Path) -> tuple[Path, Path]:
    """The results list kept beside the report ``output``, and the file that says what it was made with."""
    return output.with_suffix(".detections.json"), output.with_suffix(".settings.json")


def kept_detections(
    workdir: Path,
    config: Config,
    source: DataSource,
    output: Path,
    *,
    step: int,
    batch_size: int,
    progress: bool,
) -> Path:
    """A COCO results list of what the run's checkpoint of this step finds in the source.

    One beside the report is taken if the weights, the settings that detections depend on and the images, by
    their ids and sizes, are the same. Otherwise it is made, and replaces an older one when it is complete.
    Raises ValueError, naming it, for a file in its place that no report has made, and the errors of
    ``evaluate``.
    """
    detections, settings = detections_of(output)
    wanted = _made_with(workdir, config, source, step)
    if detections.exists():
        if not settings.exists():
            raise ValueError(
                f"{detections}: is in the place of the detections to be kept, but there is no "
                f"{settings.name} of an earlier report; --detections={detections} makes the report of it, "
                "or choose another --output"
            )
        if read_json(settings) == wanted:
            return detections
    detector = load(workdir, step=step, batch_size=batch_size, config=config)
    with replacing(detections) as unfinished:
        evaluate(detector, source, progress=progress, detections_file=unfinished)
        detections.unlink(missing_ok=True)  # first, so that an interruption leaves no wrong pair
        write_json(settings, wanted)
    return detections


def _made_with(workdir: Path, config: Config, source: DataSource, step: int) -> dict[str, Any]:
    images = hashlib.sha256(source.ids.tobytes() + source.sizes.tobytes()).hexdigest()
    fields = {
        f"config.{name}": value
        for name, value in flatten(config).items()
        if SETTINGS[name].decides != "neither" or name == "model.dtype"
    }
    made_with = {
        "step": step,
        "time of the weights": time_of_weights(workdir, step),
        "data": source.name,
        "images": f"{len(source.ids)} of ids and sizes with SHA-256 {images}",
        "proposals": config.data.val_proposals,
        **fields,
    }
    return json.loads(dumps(made_with))  # as it is read back
