"""What a run reports besides its step lines: TensorBoard summaries, validation scores and pictures."""

import dataclasses
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from PIL import Image
from tensorboardX import SummaryWriter

from mrcnn_jax.config import Config
from mrcnn_jax.data.check_images import check_images
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.findings import raise_errors
from mrcnn_jax.distributed import hosts
from mrcnn_jax.distributed.sharding import make_mesh, on_local_devices
from mrcnn_jax.evaluation.coco_eval import check_dataset, check_same_dataset, evaluate
from mrcnn_jax.images import read_image
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.models.variables import Arrays, Blueprint
from mrcnn_jax.types import Categories

_PICTURES = 4  # validation images drawn at every evaluation
_PICTURE_SCORE = 0.5  # objects of at least this score are drawn
_NAME_LENGTH = 50  # characters of an image's name in a picture's: at most 200 of the 255 bytes of a file name


class Monitor:
    """Writes ``workdir/tensorboard``, and evaluates if ``config.train.eval_every`` asks for it.

    Every evaluation also writes the first validation images with the objects found, to TensorBoard and to
    ``workdir/validation/<step>/<number>_<name>.png``.

    With several processes, the first one writes, and each evaluates its share of the images on its devices.

    Raises:
        ValueError: there is no validation set with the same categories to evaluate on, or some of its images
            are damaged (the message lists all of them).
    """

    def __init__(self, workdir: Path, blueprint: Blueprint, config: Config, categories: Categories) -> None:
        self._workdir = workdir
        self._config = config
        self._categories = categories
        self._mesh = make_mesh(jax.local_devices())
        self._with_weights = make_predict_fn(blueprint, config, self._mesh)
        self._batch_size = math.lcm(config.test.batch_size, self._mesh.size)
        if config.train.eval_every:
            data = config.data
            dataset = read_coco(
                data.root,
                images=data.val_images,
                annotations=data.val_annotations,
                keypoints=data.val_keypoints,
            )
            check_dataset(config, categories, dataset)
            count = config.train.eval_images or len(dataset.images)
            self._dataset = dataclasses.replace(dataset, images=dataset.images[:count])
            raise_errors(
                dataset.name,
                check_images(self._dataset),
                remedy="an evaluation needs all images, so data.skip_bad does not apply",
            )

    def check_same_validation_set(self) -> None:
        """Raises ValueError unless all processes have the same validation set."""
        if self._config.train.eval_every:
            check_same_dataset(self._dataset)

    @contextmanager
    def writing(self, *, after_step: int) -> Iterator[None]:
        """The context in which the methods below may be called.

        Drops what an interrupted run wrote about steps after ``after_step``.
        """
        with SummaryWriter(
            str(self._workdir / "tensorboard"),
            purge_step=after_step + 1,
            write_to_disk=hosts.is_main_process(),
        ) as self._writer:
            yield

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics' means since the last step line."""
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def evaluate(self, step: int, weights: Arrays) -> dict[str, float]:
        """Validation AP in percent, by kind ("bbox", "segm", "keypoints"); also writes pictures."""
        predict_fn = self._with_weights(on_local_devices(weights, self._mesh))
        detector = Detector(predict_fn, self._config, self._categories, batch_size=self._batch_size)
        metrics = evaluate(detector, self._dataset, progress=True)
        del metrics["per_category"]
        for kind, values in metrics.items():
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(f"validation/{kind}_{name}", value, step)

        scores = {kind: values["AP"] for kind, values in metrics.items() if values["AP"] is not None}
        if hosts.is_main_process():
            folder = self._write_pictures(step, detector)
            line = ", ".join(f"{kind} AP {score:.1f}" for kind, score in scores.items())
            print(f"step {step}: {line or 'no objects to measure AP on'}; pictures in {folder}", flush=True)
        return scores

    def _write_pictures(self, step: int, detector: Detector) -> Path:
        """The folder with the pictures of this step, replacing those that an interrupted run left there."""
        folder = self._workdir / "validation" / str(step)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [image.path for image in self._dataset.images[:_PICTURES]]
        for number, (path, result) in enumerate(zip(paths, detector.stream(paths), strict=True), start=1):
            picture = draw(read_image(path), result.above(_PICTURE_SCORE))
            Image.fromarray(picture).save(folder / _picture_name(number, path))
            self._writer.add_image(f"validation/{path.name}", picture, step, dataformats="HWC")
        return folder


def _picture_name(number: int, image: Path) -> str:
    """A file name that is unique by its number, and legal whatever the name of the image."""
    stem = re.sub(r"[^-.\w]", "_", image.stem)
    return f"{number}_{stem[:_NAME_LENGTH]}.png"
