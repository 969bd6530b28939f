"""Runs a trained model on image files and arrays, in batches.

Shapes: B images of a batch, H x W pixels of a canvas.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from mrcnn_jax.config import Config
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.images import Fitted, Size, fit, fitted_shape, read_image
from mrcnn_jax.inference.augmented import make_augmented_fn
from mrcnn_jax.inference.exported import load_programs
from mrcnn_jax.inference.predict import check_finds_objects, predict
from mrcnn_jax.inference.results import Result, to_result
from mrcnn_jax.inference.sources import Source, read_source, resize_proposals, stack_images
from mrcnn_jax.inference.views import check_flip_pairs, plain_scale, scales_of, views_of
from mrcnn_jax.models.variables import Blueprint, make_blueprint
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.proposals import ImageProposals
from mrcnn_jax.runs.categories import Categories, keypoint_flip_order
from mrcnn_jax.runs.checkpoint import check_arrays_match, load_weights
from mrcnn_jax.runs.description import Run, is_model_file, read_model
from mrcnn_jax.runtime.compilations import CompilationTracker, compiler_options
from mrcnn_jax.types import Detections, Proposals
from mrcnn_jax.weights.zoo import workdir_of

# Takes images [B H W C] (uint8 or float32), their sizes without padding, [B 2] int32, and Proposals if the
# model has no RPN. Returns detections without waiting for the device. With test-time augmentation, it takes
# the arguments of an ``augmented.AugmentedFn`` after the first.
PredictFn = Callable[..., Detections]

# Returns the proposals of the image at an index of the sources.
Propose = Callable[[int], ImageProposals]

_BATCHES_IN_FLIGHT = 2  # one on the device, one ready for it
_MAX_LAG_BATCHES = 4  # an image further behind the newest one no longer waits for its batch to fill


@dataclass(frozen=True)
class _Prepared:
    """A resized and padded image, with what its result is built from."""

    fitted: tuple[Fitted, ...]  # at each scale
    frame: Size  # height and width of the image in which its boxes are
    image_size: Size
    path: Path | None  # if it came from a file
    proposals: Proposals | None  # of a model without an RPN, without the batch axis

    @property
    def canvases(self) -> tuple[tuple[int, ...], ...]:
        return tuple(fitted.image.shape for fitted in self.fitted)


class Detector:
    """Finds objects in images: ``detector("photo.jpg")``.

    Args:
        predict_fn: compiled once per canvas of ``config.data``, since every batch has ``batch_size`` images.
        config: the run's config, with which ``predict_fn`` was made; ``data`` and ``test.scales`` set how
            images are resized and padded, ``test`` what is kept.
        categories: the categories that labels refer to.
        batch_size: images per batch.
        step: the step of the checkpoint that the weights come from, if any.
    """

    def __init__(
        self,
        predict_fn: PredictFn,
        config: Config,
        categories: Categories,
        *,
        batch_size: int = 1,
        step: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size ({batch_size}) must be at least 1")
        check_flip_pairs(config, categories)
        self.config = config
        self.categories = categories
        self.batch_size = batch_size
        self.step = step
        self.pixels = PixelFormat.of(config)
        self._predict_fn = predict_fn
        self._scales, self._views = scales_of(config), views_of(config)
        keypoints = len(categories.keypoint_names)
        self._keypoint_order = keypoint_flip_order(keypoints, categories.flip_pairs)

    @overload
    def __call__(self, source: list[Any] | tuple[Any, ...]) -> list[Result]: ...

    @overload
    def __call__(self, source: Source) -> Result: ...

    def __call__(self, source: Source | list[Any] | tuple[Any, ...]) -> Result | list[Result]:
        """The result of one image, or the list of results of a list or tuple of images.

        An image is a path, a ``PIL.Image.Image`` (converted like a file, see ``images.to_pixels``), an array
        of ``pixels``, by default uint8 [H W 3] (RGB) or [H W] (gray), or a function that returns such an
        array, called in a thread.
        Raises ``ValueError``, naming the image and the rule, for anything else and for a file that is missing
        or cannot be read.
        """
        if isinstance(source, list | tuple):
            return list(self.stream(source))
        (result,) = self.stream([source])
        return result

    def stream(self, sources: Iterable[Source], *, proposals: Propose | None = None) -> Iterator[Result]:
        """Yields the results of ``sources`` in order, as they are ready; raises like ``detector(source)``.

        Reading, computing and pasting overlap. Only a few batches are held in memory, however many
        ``sources`` there are. A model without an RPN needs ``proposals``.
        """
        for outcome in self.attempt(sources, proposals=proposals):
            if isinstance(outcome, ValueError):
                raise outcome
            yield outcome

    def attempt(
        self,
        sources: Iterable[Source],
        *,
        inspect: Callable[[int, np.ndarray], None] | None = None,
        proposals: Propose | None = None,
    ) -> Iterator[Result | ValueError]:
        """Like ``stream``, but yields the error in place of the result if an image cannot be read.

        ``inspect`` is called with the index and the pixels of each image that can be, in a thread.
        """
        if proposals is None:
            check_finds_objects(self.config.model)
        readers, finishers = ThreadPoolExecutor(), ThreadPoolExecutor()
        outcomes: dict[int, Future[Result] | ValueError] = {}
        # By the canvases of an image's views, oldest first.
        waiting: dict[tuple[tuple[int, ...], ...], list[tuple[int, _Prepared]]] = {}
        in_flight: deque[Future[Detections]] = deque()
        done = 0  # images yielded

        def dispatch(canvases: tuple[tuple[int, ...], ...]) -> None:
            batch = waiting.pop(canvases)
            if len(in_flight) == _BATCHES_IN_FLIGHT:
                in_flight.popleft().result()
            detections = self._predict([prepared for _, prepared in batch])
            on_host = finishers.submit(jax.device_get, detections)
            in_flight.append(on_host)
            for row, (index, prepared) in enumerate(batch):
                outcomes[index] = finishers.submit(self._finish, on_host, row, prepared)

        def take() -> Result | ValueError:
            if done not in outcomes:
                dispatch(next(iter(waiting)))
            outcome = outcomes.pop(done)
            return outcome.result() if isinstance(outcome, Future) else outcome

        def is_ready() -> bool:
            outcome = outcomes.get(done)
            return outcome.done() if isinstance(outcome, Future) else outcome is not None

        try:
            for index, reading in enumerate(self._read_ahead(sources, readers, inspect, proposals)):
                try:
                    prepared = reading.result()
                except ValueError as error:
                    outcomes[index] = error
                else:
                    waiting.setdefault(prepared.canvases, []).append((index, prepared))
                    if len(waiting[prepared.canvases]) == self.batch_size:
                        dispatch(prepared.canvases)
                while done <= index and (is_ready() or index - done >= _MAX_LAG_BATCHES * self.batch_size):
                    yield take()
                    done += 1
            while outcomes or waiting:
                yield take()
                done += 1
        finally:  # also when the caller stops iterating early
            for threads in (readers, finishers):
                threads.shutdown(wait=False, cancel_futures=True)

    def read(self, path: Path) -> np.ndarray:
        """The pixels of an image file, as it reads them; raises ValueError if it cannot."""
        return read_image(path, self.pixels)

    def _read_ahead(
        self,
        sources: Iterable[Source],
        readers: ThreadPoolExecutor,
        inspect: Callable[[int, np.ndarray], None] | None,
        proposals: Propose | None,
    ) -> Iterator[Future[_Prepared]]:
        reading: deque[Future[_Prepared]] = deque()
        for index, source in enumerate(sources):
            reading.append(readers.submit(self._prepare, source, index, inspect, proposals))
            if len(reading) > 2 * self.batch_size:
                yield reading.popleft()
        yield from reading

    def _prepare(
        self,
        source: Any,
        index: int,
        inspect: Callable[[int, np.ndarray], None] | None,
        proposals: Propose | None,
    ) -> _Prepared:
        image = read_source(source, index, self.pixels)
        if inspect is not None:
            inspect(index, image)
        rule = self.config.data.resize
        fitted = tuple(fit(image, **scale._asdict(), rule=rule) for scale in self._scales)
        frame = fitted[0].size
        if len(self._views) > 1:
            frame, _ = fitted_shape(*image.shape[:2], **plain_scale(self.config)._asdict(), rule=rule)
        given = None
        if proposals is not None:
            given = resize_proposals(proposals(index), image.shape[:2], frame, self.config.test.rpn_post_nms)
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        return _Prepared(fitted, frame, image.shape[:2], path, given)

    def _predict(self, batch: list[_Prepared]) -> Detections:
        """Detections of ``batch``, which is padded to the batch size with blank images."""
        views = (
            stack_images(
                [prepared.fitted[view.scale] for prepared in batch], self.batch_size, flipped=view.flipped
            )
            for view in self._views
        )
        if len(self._views) > 1:
            frames = np.array([prepared.frame for prepared in batch], np.int32)
            frames = np.pad(frames, [(0, self.batch_size - len(batch)), (0, 0)], mode="edge")
            return self._predict_fn(views, frames, self._keypoint_order)
        images, sizes = next(views)
        given = [prepared.proposals for prepared in batch]
        if given[0] is None:
            return self._predict_fn(images, sizes)
        given += given[-1:] * (self.batch_size - len(batch))
        return self._predict_fn(images, sizes, jax.tree.map(lambda *rows: np.stack(rows), *given))

    def _finish(self, detections: Future[Detections], row: int, prepared: _Prepared) -> Result:
        return to_result(
            jax.tree.map(lambda rows: rows[row], detections.result()),
            size=prepared.frame,
            image_size=prepared.image_size,
            categories=self.categories,
            mask_threshold=self.config.test.mask_threshold,
            mask_paste=self.config.test.mask_paste,
            keypoint_offset=self.config.data.keypoint_offset,
            path=prepared.path,
            pixels=self.pixels,
        )


def load(
    workdir: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    batch_size: int = 1,
    config: Config | None = None,
) -> Detector:
    """A detector with the weights and settings of a trained run, of a published model or of a model file.

    Args:
        workdir: the run's directory, as ``mrcnn-jax train`` wrote it, a published model's name, such as
            "torchvision/mask_rcnn_r50_fpn" (docs/zoo.md), whose weights are downloaded once, or a file that
            ``mrcnn-jax export`` wrote, for the platform that jax runs on.
        step: the step of the checkpoint, or "best"; None selects the newest.
        batch_size: images per batch, split over as many of this process's devices as divide it evenly, or of
            groups of ``config.test.spatial_devices`` devices, which share an image. A model file has
            programs for certain batch sizes, each for one device.
        config: replaces the run's config, for example to change the score threshold.

    Raises ``ValueError`` or ``FileNotFoundError``, naming the file and the rule, for a directory that is not
    a run, a missing or damaged checkpoint, weights that do not fit the config's model, and a setting that is
    fixed in a model file, and ``OSError`` for weights that cannot be downloaded.
    """
    workdir = workdir_of(workdir)
    run = read_model(workdir)
    config = run.config if config is None else config
    if not config.model.box:
        check_finds_objects(config.model)
    if is_model_file(workdir):
        options: Any = {"own": run.config, "step": step, "batch_size": batch_size}
        programs, config, step = load_programs(workdir, config, **options)
        return Detector(programs, config, run.categories, batch_size=batch_size, step=step)
    step, blueprint, weights, mesh = load_model(workdir, run, config, step=step, batch_size=batch_size)
    predict_fn = make_predict_fn(blueprint, config, mesh)(weights)
    return Detector(predict_fn, config, run.categories, batch_size=batch_size, step=step)


def load_model(
    workdir: Path, run: Run, config: Config, *, step: int | Literal["best"] | None, batch_size: int
) -> tuple[int, Blueprint, dict[str, Array], Mesh]:
    """The step of a run's checkpoint, its model and weights, and the mesh for batches; as ``load`` does."""
    step, weights = load_weights(workdir, step)
    blueprint = make_blueprint(
        config.model, num_classes=len(run.categories), num_keypoints=len(run.categories.keypoint_names)
    )
    check_arrays_match(blueprint.shapes(), weights, source=f"{workdir}, step {step}")
    mesh = mesh_of_batch(batch_size, config.test.spatial_devices)
    return step, blueprint, jax.device_put(weights, replicated(mesh)), mesh


def mesh_of_batch(batch_size: int, spatial_devices: int) -> Mesh:
    """A mesh of as many groups of this process's devices as divide a batch evenly.

    Raises ValueError if the devices are too few for one group.
    """
    devices = jax.local_devices()
    check_fits_process(spatial_devices)
    groups = math.gcd(batch_size, len(devices) // spatial_devices)
    return make_mesh(devices[: groups * spatial_devices], spatial_devices=spatial_devices)


def check_fits_process(spatial_devices: int) -> None:
    """Raises ValueError if ``test.spatial_devices`` exceeds this process's devices: each works by itself."""
    if spatial_devices > jax.local_device_count():
        raise ValueError(
            f"test.spatial_devices ({spatial_devices}) must not exceed the number of devices of a process "
            f"({jax.local_device_count()})"
        )


def make_predict_fn(
    blueprint: Blueprint, config: Config, mesh: Mesh
) -> Callable[[Mapping[str, Array]], PredictFn]:
    """A function that takes weights and returns a ``PredictFn``, whose batches are split over ``mesh``.

    It folds the batch norms. The program is compiled once per canvas whatever the weights, so training
    compiles it once for all its evaluations; any other compilation gives a warning (see ``compilations``).
    """
    if len(views_of(config)) > 1:
        fold = jax.jit(blueprint.fold, out_shardings=replicated(mesh))
        augmented = make_augmented_fn(blueprint, config, mesh)
        return lambda weights: partial(augmented, fold(weights))
    compiled = jit_predict(blueprint, config, mesh)
    return with_folded_weights(compiled, blueprint, scales_of(config)[0].canvases, mesh)


def with_folded_weights(
    compiled: jax.stages.Wrapped, blueprint: Blueprint, canvases: Sequence[Size], mesh: Mesh
) -> Callable[[Mapping[str, Array]], Callable[..., Any]]:
    """A function from weights to ``compiled`` with these weights, called with batches on ``canvases``."""
    fold = jax.jit(blueprint.fold, out_shardings=replicated(mesh))
    compilations = CompilationTracker("inference", canvases)
    shardings = _input_shardings(mesh)

    def with_weights(weights: Mapping[str, Array]) -> Callable[..., Any]:
        arrays = fold(weights)

        def run(images: np.ndarray, image_sizes: np.ndarray, *given: Proposals) -> Any:
            inputs = (images, image_sizes, *given)
            compiles = compilations.record(images, {"images": images, "image_sizes": image_sizes})
            with jax.set_mesh(mesh), compilations.announced(images, compiles):
                return compiled(arrays, *jax.device_put(inputs, shardings[: len(inputs)]))

        return run

    return with_weights


def _input_shardings(mesh: Mesh) -> tuple[Any, Any, Any]:
    """The shardings of images, their sizes and their proposals."""
    sharding = batch_sharding(mesh)
    return sharding.images, sharding.image_sizes, sharding.proposals


def jit_predict(blueprint: Blueprint, config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """``predict`` jitted for ``mesh``, of arrays for ``blueprint.folded()``, images and their sizes.

    For a model without an RPN, proposals are the last argument.
    """
    folded, inputs = blueprint.folded(), _input_shardings(mesh)

    def predict_batch(
        arrays: Mapping[str, Array], images: Array, image_sizes: Array, *given: Proposals
    ) -> Detections:
        return predict(folded.build(arrays), images, image_sizes, config, *given)

    return jax.jit(
        predict_batch,
        in_shardings=(replicated(mesh), *(inputs[:2] if config.model.rpn else inputs)),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
