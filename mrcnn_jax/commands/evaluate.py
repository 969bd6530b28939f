"""Evaluates a trained run on its validation set: COCO's average precision for boxes, masks and keypoints.

LVIS's annotations (neg_category_ids) are recognised, and measured by LVIS's average precision.

    mrcnn-jax evaluate --workdir=runs/shapes
    mrcnn-jax evaluate --workdir=runs/coco --config.data.root=/data/coco --config.data.val_images=val2017
    mrcnn-jax evaluate --workdir=torchvision/mask_rcnn_r50_fpn --config.data.root=/data/coco --output=r50.json

Prints the tables and writes evaluation.json (percent; null where there is nothing to measure) to the run's
directory, or to --output, which a published model or a model file (mrcnn-jax export) requires.
--save_detections=FILE also writes what was found, as the COCO results list that pycocotools' loadRes takes.
To evaluate on another dataset with the same categories, set --config.data.root, val_images, val_annotations
and val_keypoints, or val_records. All images are checked first.

Of a region proposal network alone (model.box is False) it measures the average recall of 100 and of 1000
proposals, as Detectron2 does. A model without one (model.rpn is False) takes the proposals of
--config.data.val_proposals.

--config.test.scales="(640, 800, 1000)" --config.test.flip=true evaluates with test-time augmentation: what is
found at these sizes and in the mirrored images is merged. It also works in mrcnn-jax predict and in training.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config.paths import check_data_paths
from mrcnn_jax.runs.description import is_model_file
from mrcnn_jax.weights.zoo_models import find_model, model_config

_FINDINGS = 10  # problems in the data that are printed

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory of the trained run, a published model's name (docs/zoo.md), or a file that mrcnn-jax export "
    "wrote (docs/deployment.md)",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "file to write; evaluation.json in --workdir if that is a run's directory and this is not given",
)
_DETECTIONS = flags.DEFINE_string(
    "save_detections", None, "also write all detections to this file, as a COCO results list"
)
_hosts = command_line.define_hosts(handle_sigterm=False)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images per batch; the run's if not given", lower_bound=1
)
_EVALUATOR: Any = flags.DEFINE_enum(
    "evaluator",
    "hotcoco",
    ["hotcoco", "pycocotools"],
    "library that computes the metrics; pycocotools gives the same ones many times slower, as a check",
)


def main(_: list[str]) -> None:
    with _hosts(_check_arguments):
        _evaluate()


def _check_arguments() -> None:
    """Raises ValueError or OSError for what is missing, before a published model is downloaded."""
    published = find_model(_WORKDIR.value)
    if not _OUTPUT.value and (published or is_model_file(_WORKDIR.value)):
        kind = "a published model" if published else "a model file"
        raise ValueError(f"--output is missing: {_WORKDIR.value} is {kind}, not a directory to write into")
    config = _override(model_config(_WORKDIR.value))
    if not config.model.box and (_DETECTIONS.value or _EVALUATOR.value != "hotcoco"):
        raise ValueError(
            "the model is a region proposal network alone (model.box is False), so its recall is measured: "
            "--save_detections and --evaluator=pycocotools do not apply"
        )
    check_data_paths(config, "val")


def _evaluate() -> None:
    from mrcnn_jax.data.findings import summary
    from mrcnn_jax.data.open_data_source import open_validation_source
    from mrcnn_jax.distributed import hosts
    from mrcnn_jax.distributed.agreement import check_same_arrays, check_same_config
    from mrcnn_jax.evaluation.coco_eval import check_evaluator, check_source, evaluate
    from mrcnn_jax.evaluation.proposal_recall import evaluate_proposals
    from mrcnn_jax.evaluation.table import format_metrics
    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.inference.proposer import Proposer, load_proposer
    from mrcnn_jax.inference.views import describe_views
    from mrcnn_jax.json_files import write_json
    from mrcnn_jax.runs.description import read_model
    from mrcnn_jax.weights.zoo import workdir_of

    with hosts.fail_together():
        workdir = workdir_of(_WORKDIR.value)
        run = read_model(workdir)
        config = _override(run.config)
        data = config.data
        output = Path(_OUTPUT.value or workdir / "evaluation.json")
        detections_file = Path(_DETECTIONS.value) if _DETECTIONS.value else None
        names = [data.val_annotations, data.val_keypoints, data.val_records, data.val_proposals]
        inputs = [Path(data.root) / name for name in names if name]
        _check_output("output", output, inputs=inputs)
        if detections_file is not None:
            _check_output("save_detections", detections_file, inputs=inputs)
            if detections_file.resolve() == output.resolve():
                raise ValueError(f"--save_detections={detections_file}: --output is the same file")
        source = open_validation_source(config)
        options: Any = {
            "step": _STEP.value,
            "batch_size": _BATCH_SIZE.value or config.test.batch_size,
            "config": config,
        }
        if config.model.box:
            check_evaluator(_EVALUATOR.value, source)
            check_source(config, run.categories, source)
        detector = (load if config.model.box else load_proposer)(workdir, **options)
    check_same_config(config)
    check_same_arrays("checkpoints", np.array(detector.step))
    if hosts.is_main_process():
        if source.findings:
            print(summary(source.findings, rows=_FINDINGS), flush=True)
        print(f"step {detector.step} on the {len(source.ids)} images of {source.name}", flush=True)
        if line := describe_views(config):
            print(line, flush=True)
    if isinstance(detector, Proposer):
        metrics: Any = evaluate_proposals(detector, source, progress=True)
    else:
        metrics = evaluate(
            detector, source, evaluator=_EVALUATOR.value, progress=True, detections_file=detections_file
        )
    if hosts.is_main_process():
        write_json(output, {"step": detector.step, "annotations": source.name, **metrics})
        print(f"{format_metrics(metrics)}\n\nwritten to {output}")
        if detections_file is not None:
            print(f"detections in {detections_file}")


def _check_output(flag: str, output: Path, *, inputs: list[Path]) -> None:
    """Checks, before the evaluation, that ``output`` can be written and is not among or in ``inputs``."""
    if {output.resolve(), output.resolve().parent} & {path.resolve() for path in inputs}:
        raise ValueError(f"{output} is an input and would be overwritten; choose another --{flag}")
    command_line.check_output(flag, output)
