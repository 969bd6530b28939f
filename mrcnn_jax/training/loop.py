"""A training run, from a config and a directory to checkpoints: read from top to bottom."""

import itertools
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from tensorboardX import SummaryWriter

from mrcnn_jax.checkpoint import Checkpoints, write_run
from mrcnn_jax.config import Config
from mrcnn_jax.data.coco import CocoDataset, read_coco
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.evaluation.coco_eval import evaluate
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.training.metrics import StepLog
from mrcnn_jax.training.step import compile_step, make_state
from mrcnn_jax.types import Batch, Categories
from mrcnn_jax.weights.backbone import load_backbone

PICTURES = 4  # validation images drawn for TensorBoard at every evaluation


def train(config: Config, workdir: Path) -> None:
    """Trains to ``config.train.steps``, from the last checkpoint in ``workdir`` if it has one.

    A run that was interrupted ends bit-equal to one that was not: batches and random numbers are functions of
    (seed, step), and the checkpoint holds all else.

    Raises:
        ValueError: the batch does not divide over the devices, the data are malformed, or ``workdir`` holds a run
            of another config.
        FloatingPointError: a loss is not finite; the step and the loss are named.
    """
    # Data
    data = config.data
    training = read_coco(
        data.root, images=data.train_images, annotations=data.train_annotations, keypoints=data.train_keypoints
    )
    categories = training.categories
    validation = _read_validation(config, categories) if config.train.eval_every else None
    print(f"{len(training.images)} images, {len(categories)} categories: {', '.join(categories.names[:8])}", flush=True)

    # Model and step
    mesh = make_mesh()
    blueprint = make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )
    step_fn = compile_step(blueprint, config, mesh)
    write_run(workdir, config, categories)

    with Checkpoints(workdir, keep=config.train.keep_checkpoints) as checkpoints:
        # State: the last checkpoint, or step 0
        key = jax.random.key(config.train.seed)
        latest = checkpoints.latest_step()
        if latest is None:
            weights = _initial_weights(blueprint, key)
            state = jax.device_put(make_state(blueprint, weights, key, config), replicated(mesh))
        else:
            pass
    del step_fn, state
