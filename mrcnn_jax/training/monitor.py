"""What a run reports besides its step lines: curves, settings, validation scores and pictures."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import differences, flatten
from mrcnn_jax.data.open_proposals import open_proposals
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.distributed import hosts
from mrcnn_jax.distributed.sharding import make_mesh, on_local_devices
from mrcnn_jax.evaluation.coco_eval import check_same_source, check_source, evaluate
from mrcnn_jax.evaluation.measured import kinds_of
from mrcnn_jax.evaluation.pictures import annotated, side_by_side
from mrcnn_jax.evaluation.proposal_recall import evaluate_proposals
from mrcnn_jax.inference.detector import Detector, check_fits_process, make_predict_fn
from mrcnn_jax.inference.proposer import ProposeFn, Proposer, make_propose_fn
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.training.metrics import format_losses
from mrcnn_jax.training.validation import ValidationLosses
from mrcnn_jax.training.writers import TensorBoardWriter, Writer, open_service

Callback = Callable[[int, dict[str, float]], None]  # takes the step and values by TensorBoard's names

_HYPERPARAMETERS = ("train.batch_size", "train.learning_rate", "train.steps", "train.seed")
_PICTURES = 4  # validation images drawn at every evaluation
_PICTURE_SCORE = 0.5  # objects of at least this score are drawn


class Monitor:
    """Writes ``workdir/tensorboard``, and evaluates on ``validation`` unless it is None.

    With ``train.validation_loss`` an evaluation also measures the losses of the validation set. Every
    evaluation also writes the first validation images, the annotated objects beside those found, to
    TensorBoard and to ``workdir/validation/<step>/<image id>.png``. TensorBoard also has the config, as text
    and as hyperparameters.

    What TensorBoard gets is written to the ``services``, too (``writers.SERVICES``), and ``callbacks`` are
    called with its numbers, by the first process. ``image_counts`` are those of ``compute_losses``, of the
    training images.

    With several processes, the first one writes, and each evaluates its share of the images on its devices.

    Raises:
        ValueError: as ``check_source`` does, if the run cannot be evaluated on ``validation``.
    """

    def __init__(
        self,
        workdir: Path,
        blueprint: Blueprint,
        config: Config,
        categories: Categories,
        validation: DataSource | None,
        callbacks: Sequence[Callback] = (),
        image_counts: np.ndarray | None = None,
        services: Sequence[str] = (),
    ) -> None:
        self._workdir = workdir
        self._config = config
        self._categories = categories
        self._validation = validation
        self._callbacks = callbacks if hosts.is_main_process() else ()
        self._services = services
        self._writers: list[Writer] = []
        check_fits_process(config.test.spatial_devices)
        self._mesh = make_mesh(jax.local_devices(), spatial_devices=config.test.spatial_devices)
        make = make_predict_fn if config.model.box else make_propose_fn
        self._with_weights: Any = make(blueprint, config, self._mesh)
        self._batch_size = math.lcm(config.test.batch_size, self._mesh.shape["data"])
        self._losses: ValidationLosses | None = None
        if validation is not None:
            check_source(config, categories, validation)
            if config.train.validation_loss:
                self._losses = ValidationLosses(
                    blueprint,
                    config,
                    categories,
                    validation,
                    self._mesh,
                    batch_size=self._batch_size,
                    image_counts=image_counts,
                )

    def check_same_validation_set(self) -> None:
        """Raises ValueError unless all processes have the same validation set."""
        if self._validation is not None:
            check_same_source(self._validation)

    @contextmanager
    def writing(self, *, after_step: int) -> Iterator[None]:
        """The context in which the methods below may be called.

        Drops what an interrupted run wrote about steps after ``after_step``.
        """
        failed = True
        self._writers = []
        try:
            with hosts.fail_together():
                if hosts.is_main_process():
                    self._writers.append(TensorBoardWriter(self._workdir, after_step))
                    for name in self._services:
                        self._writers.append(open_service(name, self._workdir))
            self._write_settings(after_step)
            yield
            failed = False
        finally:
            for writer in self._writers:
                writer.close(failed=failed)

    def _write_settings(self, step: int) -> None:
        fields = flatten(self._config)
        names = {*differences(self._config, Config()), *_HYPERPARAMETERS}
        chosen = {name: value for name, value in fields.items() if name in names}
        metrics = ["train/loss"]
        if self._validation is not None and self._config.model.box:
            metrics += [f"validation/{kind}_AP" for kind in kinds_of(self._config, self._validation)]
        elif self._validation is not None:
            metrics.append("validation/proposals_AR@1000")
        for writer in self._writers:
            writer.write_settings(step, fields, chosen, metrics)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics' means since the last step line."""
        self._write(step, {f"train/{name}": value for name, value in values.items()})

    def _write(self, step: int, values: dict[str, float]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, values)
        for callback in self._callbacks:
            callback(step, values)

    def evaluate(self, step: int, weights: Arrays) -> dict[str, float]:
        """Validation AP in percent, by kind ("bbox", "segm", "keypoints"); also writes pictures.

        Of a model without heads it is the average recall of 1000 proposals ("proposals"), without pictures.
        """
        assert self._validation is not None
        weights = on_local_devices(weights, self._mesh)
        if self._losses is not None:
            self._write_losses(step, self._losses.measure(weights))
        predict_fn = self._with_weights(weights)
        if not self._config.model.box:
            return self._evaluate_proposals(step, predict_fn)
        detector = Detector(predict_fn, self._config, self._categories, batch_size=self._batch_size)
        metrics = evaluate(detector, self._validation, progress=True)
        del metrics["per_category"]
        measured = {
            f"validation/{kind}_{name}": value
            for kind, values in metrics.items()
            for name, value in values.items()
            if value is not None
        }
        self._write(step, measured)
        scores = {kind: values["AP"] for kind, values in metrics.items() if values["AP"] is not None}
        if hosts.is_main_process():
            folder = self._write_pictures(step, detector, self._validation)
            line = ", ".join(f"{kind} AP {score:.1f}" for kind, score in scores.items())
            print(f"step {step}: {line or 'no objects to measure AP on'}; pictures in {folder}", flush=True)
        return scores

    def _write_losses(self, step: int, losses: dict[str, float]) -> None:
        self._write(step, {f"validation/{name}": loss for name, loss in losses.items()})
        if hosts.is_main_process():
            print(f"step {step}: validation {format_losses(losses)}", flush=True)

    def _evaluate_proposals(self, step: int, propose_fn: ProposeFn) -> dict[str, float]:
        assert self._validation is not None
        proposer = Proposer(propose_fn, self._config, self._categories, batch_size=self._batch_size)
        recall = evaluate_proposals(proposer, self._validation, progress=True)["proposals"]
        measured = {name: value for name, value in recall.items() if value is not None}
        self._write(step, {f"validation/proposals_{name}": value for name, value in measured.items()})
        if hosts.is_main_process():
            line = ", ".join(f"{name} {measured[name]:.1f}" for name in ("AR@100", "AR@1000") if measured)
            print(f"step {step}: proposals {line or 'of no objects to measure AR on'}", flush=True)
        return {"proposals": measured["AR@1000"]} if measured else {}

    def _write_pictures(self, step: int, detector: Detector, source: DataSource) -> Path:
        """The folder with the pictures of this step, replacing those that an interrupted run left there."""
        folder = self._workdir / "validation" / str(step)
        folder.mkdir(parents=True, exist_ok=True)
        ids = source.ids[:_PICTURES].tolist()
        images = [source.read(index).pixels for index in range(len(ids))]
        proposals = open_proposals(self._config, source, "val")
        given = None if proposals is None else proposals.__getitem__
        results = detector.stream(images, proposals=given)
        for index, (image_id, pixels, result) in enumerate(zip(ids, images, results, strict=True)):
            objects = annotated(
                source, index, masks=result.crops is not None, keypoints=result.keypoints is not None
            )
            image = detector.pixels.show(pixels)
            picture = side_by_side(image, objects, result.above(_PICTURE_SCORE))
            Image.fromarray(picture).save(folder / f"{image_id}.png")
            for writer in self._writers:
                writer.write_picture(step, f"validation/image_{image_id}", picture)
        return folder
