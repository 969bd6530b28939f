"""Trains a config in a run directory, or resumes the run in it.

    mrcnn-jax train --config=shapes --workdir=runs/shapes --config.train.steps=500
    mrcnn-jax train --config=finetune --workdir=runs/mine --data=PHOTOS --init=torchvision/mask_rcnn_r50_fpn

Started once on each host, the processes train one model together (see docs/multi_host.md). On TPU pods and
with SLURM or Open MPI this command is enough; elsewhere add --coordinator, --num_processes and --process_id.
Ctrl-C, or SIGTERM to any of them, makes all save after the current step and exit with code 130 or 143; a
second one ends them at once. The same command goes on from there.

--augment=FILE.py:FUNCTION runs that file, and passes every training image and its objects through the
function (docs/data.md). It is no part of the config or the run, so a resumed run needs it again.
"""

from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config
from mrcnn_jax.config.paths import check_backbone_path, check_data_paths
from mrcnn_jax.runs.description import is_run
from mrcnn_jax.weights.zoo_models import check_not_a_model, run_config

if TYPE_CHECKING:
    from mrcnn_jax.data.own_augment import Augment

_config = command_line.define_config()
_hosts = command_line.define_hosts(handle_sigterm=True, keep_memory=False)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the run: config, checkpoints, logs", required=True
)
_DATA = flags.DEFINE_string(
    "data", None, "folder of images in COCO format, in any usual layout: sets the paths of config.data"
)
_INIT = flags.DEFINE_string(
    "init",
    None,
    "what a new run begins from: the directory of a run, or the name of a published model (docs/zoo.md); "
    "what it lacks is initialised, and if the data have other categories, the outputs of the heads' last "
    "layers are kept for those of the same name and re-initialised for the others",
)
_augment = command_line.define_augment()
_LOG_TO = flags.DEFINE_list(
    "log_to", [], "where the run is logged besides TensorBoard: wandb, mlflow (docs/training.md)"
)


def main(_: list[str]) -> int:
    with _hosts(partial(_complete, _config())) as (config, augment):
        print("starting TensorFlow (for tf.data) ...", flush=True)
        from mrcnn_jax.distributed import hosts
        from mrcnn_jax.training.loop import train

        finished = train(config, _WORKDIR.value, init=_INIT.value, augment=augment, log_to=_LOG_TO.value)
        return 0 if finished else 128 + hosts.stop_signal()


def _complete(config: Config) -> "tuple[Config, Augment | None]":
    """The config with the paths of ``--data``, and the function of ``--augment``.

    Raises ValueError for missing data, weights or functions.
    """
    if _DATA.value:
        from mrcnn_jax.data.folders import with_layout

        config = with_layout(config, _DATA.value)
    if _LOG_TO.value:
        from mrcnn_jax.training.writers import check_services

        check_services(_LOG_TO.value)
    check_data_paths(config, "train")
    if config.train.eval_every:
        try:
            check_data_paths(config, "val")
        except ValueError as error:
            raise ValueError(f"{error}\nto train without evaluations: --config.train.eval_every=0") from error
    if not is_run(_WORKDIR.value):
        check_not_a_model(_WORKDIR.value)
        if _INIT.value:
            run_config(_INIT.value)
        else:
            check_backbone_path(config)
    return config, _augment()
