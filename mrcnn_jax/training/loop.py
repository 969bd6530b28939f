"""A training run, from a config to checkpoints in a directory: read ``train`` from top to bottom."""

import dataclasses
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import jax
from jax.sharding import Mesh

from mrcnn_jax.config import Config
from mrcnn_jax.data.augmented import mean_colour
from mrcnn_jax.data.findings import summary
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
from mrcnn_jax.data.open_proposals import describe_shortage, open_proposals
from mrcnn_jax.data.own import Dataset, as_source
from mrcnn_jax.data.own_augment import Augment
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.data.selection import (
    describe_selection,
    images_of_categories,
    repeats_of_images,
    trained_images,
)
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.distributed import hosts
from mrcnn_jax.distributed.agreement import check_same_arrays, check_same_config, check_shared_workdir
from mrcnn_jax.distributed.sharding import make_mesh, place_batch, share_of_batch
from mrcnn_jax.distributed.stopping import catching_interrupts
from mrcnn_jax.models.variables import Arrays, make_blueprint
from mrcnn_jax.pixels import PixelFormat
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import Checkpoints, is_untrained
from mrcnn_jax.runs.description import how_to_train_longer, is_run, read_run, write_run
from mrcnn_jax.runtime.compilations import watch_compilations
from mrcnn_jax.training.freezing import freeze
from mrcnn_jax.training.history import History
from mrcnn_jax.training.metrics import StepLog
from mrcnn_jax.training.monitor import Callback, Monitor
from mrcnn_jax.training.optimizer import with_steps
from mrcnn_jax.training.precise_bn import PreciseStatistics, trained_norms
from mrcnn_jax.training.state import first_state, restore_state, training_items
from mrcnn_jax.training.step import compile_step
from mrcnn_jax.training.writers import check_services
from mrcnn_jax.types import Batch
from mrcnn_jax.weights.begin import begin_run
from mrcnn_jax.weights.zoo import workdir_of
from mrcnn_jax.weights.zoo_models import check_not_a_model

_FINDINGS = 10  # problems in the data that are printed at the start
_PREFETCH = 2  # batches copied to the devices ahead of the step


def train(
    config: Config,
    workdir: str | Path,
    *,
    source: DataSource | Dataset | None = None,
    validation: DataSource | Dataset | None = None,
    init: str | Path | None = None,
    augment: Augment | None = None,
    callbacks: Sequence[Callback] = (),
    log_to: Sequence[str] = (),
) -> bool:
    """Trains up to ``config.train.steps``, from the last checkpoint in ``workdir`` if it holds one.

    Args:
        config: All settings; ``config.train.epochs``, if set, replaces the number of steps.
        workdir: Directory of the run.
        source: The training images and their objects, see ``data.own.Dataset``; by default those that
            ``config.data`` names.
        validation: Likewise for the evaluations; by default those of ``config.data``, or none if a
            ``source`` is given.
        init: What a new run begins from: the directory of another run, or the name of a published model
            (docs/zoo.md). An RPN and heads that it lacks are initialised. If the data have other categories,
            the outputs of the heads' last layers are kept for those of the same name and re-initialised for
            the others. Without effect on a run that is resumed.
        augment: A function of one's own that changes each training image and its objects, see
            ``data.own_augment``. It is no part of the run: a resumed run needs it again.
        callbacks: Called with the step and what TensorBoard gets, such as ``{"train/loss": 1.5}`` with every
            step line and ``{"validation/bbox_AP": 30.1}`` after an evaluation; by process 0 only.
        log_to: "wandb" (Weights & Biases) and "mlflow", which get what TensorBoard gets, see ``writers``.

    Returns True if it got that far, or ended early by ``config.train.stop_after``; False if SIGTERM or Ctrl-C
    stopped it: after ``hosts.join``, the first makes it save and stop after the current step, and a second
    one ends the process. Processes that have joined train one model and must share ``workdir``.

    A checkpoint of step 0 has only the weights that the run starts from. An interrupted and resumed run ends
    bit-equal to an uninterrupted one: batches and random numbers are functions of (seed, step), and a
    checkpoint holds everything else. (On a GPU only if XLA adds without atomics; see docs/faq.md.)

    Raises:
        ValueError: the batch size is not divisible by the number of devices, the data are malformed, the
            backbone's weights do not fit, or ``workdir`` holds a run with another config or other categories,
            or one without its training state; or the processes were given different configs, data or weights.
        FloatingPointError: a loss is not finite; the message names the step and the loss.
    """
    workdir, data, pixels = Path(workdir), config.data, PixelFormat.of(config)

    with hosts.fail_together():
        check_services(log_to)
        check_not_a_model(workdir)
        is_new = hosts.is_main_process() and not is_run(workdir)
        earlier = workdir_of(init) if init is not None and is_new else None
        # Data
        if source is None:
            source, own = open_data_source(config), False
        else:
            grid = data.mask_grid if config.model.mask else 0
            source, own = as_source(source, mask_grid=grid, pixels=pixels), True
        names = source.categories.names
        hosts.say(f"{len(source.ids)} training images, {len(names)} categories: {_first(names)}")
        if source.findings:
            hosts.say(summary(source.findings, rows=_FINDINGS))
        for line in describe_selection(source, data, keypoints=config.model.keypoint):
            hosts.say(line)
    with hosts.fail_together():
        if earlier is not None:
            begun = begin_run(earlier, config, workdir, source.categories)
            new, left_out = (", ".join(names) for names in (begun.new_layers, begun.left_out))
            hosts.say(
                f"begins from {init}; re-initialised layers: {new or 'none'}"
                + (f"; left out: {left_out}" if left_out else "")
            )
            if kept := begun.kept_and_new_names():
                hosts.say(kept)
    with hosts.fail_together():
        source, categories = _with_categories_of_run(source, workdir)
        proposals = open_proposals(config, source, "train")
        if proposals is not None and (shortage := describe_shortage(proposals, config)):
            hosts.say(shortage)

        trained = trained_images(source, data, keypoints=config.model.keypoint)
        repeats = repeats_of_images(source, data, trained)
        config = with_steps(config, images=int(trained.sum()) if repeats is None else float(repeats.sum()))
        settings = config.train
        if settings.epochs:
            hosts.say(
                f"train.epochs is {settings.epochs:g}: {settings.steps} steps of {settings.batch_size} images"
            )

        # Model and step
        mesh = make_mesh(spatial_devices=settings.spatial_devices)
        blueprint = make_blueprint(
            config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
        )
        blueprint = freeze(blueprint, settings)
        counts = None
        if settings.federated_classes:
            counts = images_of_categories(source, trained, "train.federated_classes")
        take_step = compile_step(blueprint, config, mesh, counts)
        precise = None
        if settings.precise_bn and trained_norms(blueprint):
            precise = PreciseStatistics(blueprint, config, mesh, counts)
        elif settings.precise_bn:
            hosts.say("train.precise_bn has no effect: no batch norm of the model is trained")
        val_grid = data.mask_grid if settings.validation_loss and config.model.mask else 0
        if not settings.eval_every:
            validation = None
        elif validation is not None:
            validation = as_source(validation, mask_grid=val_grid, pixels=pixels)
        elif not own:
            validation = open_validation_source(
                config, count=settings.eval_images or None, mask_grid=val_grid
            )
            if validation.findings:
                hosts.say(f"validation data: {summary(validation.findings, rows=_FINDINGS)}")
        monitor = Monitor(workdir, blueprint, config, categories, validation, callbacks, counts, log_to)
        untrained = is_untrained(workdir)
    check_same_config(config)
    check_same_arrays("training images", source.ids, source.sizes, source.num_objects, source.learnable)
    if source.image_labels is not None and (repeats is not None or counts is not None):
        check_same_arrays("categories of the training images", source.image_labels)
    if proposals is not None:
        file = proposals.file
        check_same_arrays("training proposals", file.ids, file.offsets, file.boxes)
    monitor.check_same_validation_set()
    with hosts.fail_together():
        if hosts.is_main_process():
            write_run(workdir, config, categories, untrained=untrained)
    with hosts.fail_together():
        check_shared_workdir(workdir)
    hosts.connect(mesh)

    with catching_interrupts(), Checkpoints(workdir, keep=settings.keep_checkpoints) as checkpoints:
        # State: restored from the last checkpoint, or new
        latest = checkpoints.latest_step()
        if latest is not None and checkpoints.has_training(latest):
            state = restore_state(checkpoints, latest, blueprint, config, mesh)
            hosts.say(f"continuing from step {latest} of {workdir}")
        else:
            state = first_state(checkpoints, latest, blueprint, config, mesh, workdir)
            hosts.say(f"{_millions(state.params)} parameters trained, {_millions(state.frozen)} frozen")
        first = int(state.step)
        if first >= settings.steps:
            hosts.say(f"already trained for {first} steps; {how_to_train_longer(workdir, config)}")
            return True
        history = History(workdir, step=first)
        if reason := history.reason_to_stop(settings.stop_after):
            hosts.say(
                f"stopped after step {first}: {reason}; to continue, raise train.stop_after or set it to 0"
            )
            return True

        # Loop
        share, shares = share_of_batch(mesh)
        batches_from = partial(
            training_batches,
            source,
            data,
            batch_size=settings.batch_size,
            seed=settings.seed,
            masks=config.model.mask,
            keypoints=config.model.keypoint,
            proposals=proposals,
            num_proposals=settings.rpn_post_nms,
            process_index=share,
            process_count=shares,
            augment=augment,
            fill=mean_colour(config.model),
            pixels=pixels,
        )
        batches = _on_devices(batches_from(start_step=first), mesh)
        log = StepLog(total_steps=settings.steps, batch_size=settings.batch_size)
        hosts.say(f"training on {_device_count(mesh)}")
        started = time.perf_counter()
        with monitor.writing(after_step=first), watch_compilations(partial(_announce, log)):
            for step in range(first + 1, settings.steps + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - asked
                state, metrics = take_step(state, batch)
                log.add(step, metrics, waited=waited)
                if step == first + 1:
                    log.restart_clock(after=metrics)
                    hosts.say(f"first step after {time.perf_counter() - started:.0f} s")

                last = step == settings.steps
                stopping = hosts.should_stop(step) and not last
                evaluate = validation is not None and (step % settings.eval_every == 0 or last)
                save = step % settings.checkpoint_every == 0 or evaluate or last or stopping
                if step % settings.log_every == 0 or save:
                    line, means = log.flush()
                    hosts.say(line)
                    monitor.write_scalars(step, means)
                if precise is not None and (evaluate or last):
                    hosts.say(f"batch norm: statistics of {settings.precise_bn} batches")
                    following = _on_devices(batches_from(start_step=step), mesh)
                    state = precise.update(state, islice(following, settings.precise_bn))
                if save:
                    scores = None
                    try:
                        if evaluate:
                            scores = monitor.evaluate(step, state.weights())
                            history.add(step, scores)
                    finally:  # save even if the evaluation fails
                        checkpoints.save(step, state.weights(), training_items(state), scores)
                    log.restart_clock()
                if stopping:
                    name = "Ctrl-C" if hosts.stop_signal() == signal.SIGINT else "SIGTERM"
                    hosts.say(f"stopped after step {step} by {name}; run the same command to continue")
                    return False
                if evaluate and (reason := history.reason_to_stop(settings.stop_after)) and not last:
                    hosts.say(f"stopped after step {step}: {reason}")
                    return True
    hosts.say(f"trained for {settings.steps} steps; checkpoints are in {workdir / 'checkpoints'}")
    return True


def _with_categories_of_run(source: DataSource, workdir: Path) -> tuple[DataSource, Categories]:
    """The source, with the labels of the run in ``workdir`` if there is one, and the run's categories."""
    if not is_run(workdir):
        return source, source.categories
    categories = read_run(workdir).categories
    try:
        source = AlignedSource(source, categories)
    except ValueError as error:
        raise ValueError(
            f"{error}\nto fine-tune a model on other categories, make a new run from its weights: "
            "mrcnn-jax convert --source=run --new_categories=FILE"
        ) from error
    sigmas = source.categories.sigmas or categories.sigmas
    return source, dataclasses.replace(categories, sigmas=sigmas)


def _on_devices(batches: Iterator[Batch], mesh: Mesh) -> Iterator[Batch]:
    """The batches as device arrays, copied ahead of use; image ids are dropped, as they take 64 bits."""
    queue: deque[Batch] = deque()
    for batch in batches:
        queue.append(place_batch(dataclasses.replace(batch, ids=None), mesh))
        if len(queue) > _PREFETCH:
            yield queue.popleft()


def _announce(log: StepLog, program: str, seconds: float | None) -> None:
    """Says that a program is being compiled, or has been in ``seconds``, which ``log`` leaves out."""
    if seconds is None:
        log.settle()
        hosts.say(f"compiling {program} ...")
    else:
        log.leave_out(seconds)
        hosts.say(f"... {seconds:.0f} s")


def _device_count(mesh: Mesh) -> str:
    processes, shared_by = jax.process_count(), mesh.shape["spatial"]
    of_processes = f" of {processes} processes" if processes > 1 else ""
    return f"{mesh.size} device(s){of_processes}" + (f", {shared_by} an image" if shared_by > 1 else "")


def _first(names: tuple[str, ...], count: int = 8) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _millions(arrays: Arrays) -> str:
    return f"{sum(x.size for x in arrays.values()) / 1e6:.1f} M"
