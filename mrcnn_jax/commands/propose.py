"""Writes the proposals of a data set to a file, from which models without an RPN are trained.

    mrcnn-jax propose --workdir=runs/rpn --split=train --output=data/shapes/proposals_train.npz
    mrcnn-jax propose --workdir=runs/rpn --split=val --output=data/shapes/proposals_val.npz
    mrcnn-jax propose --workdir=runs/rpn --coco=image_info_unlabeled2017.json --images=unlabeled2017 \\
        --output=proposals_unlabeled.npz
    mrcnn-jax propose --input=box_proposals.pkl --output=proposals.npz

The first two run the region proposal network of a trained run, or of a published model, on all images of
its training or validation data; --config.data.root and others name other data. The third runs it on the
images that a COCO file lists, with or without annotations, in the folder --images. An image has as many
proposals as its use takes: at most --config.train.rpn_post_nms for training, else --config.test.rpn_post_nms.
A model without an RPN (model.rpn is False) is trained on them with --config.data.train_proposals and
evaluated with --config.data.val_proposals, which are relative to --config.data.root.

Until all images are done, their proposals are in a folder beside the file, FILE.npz.partial. If the run is
interrupted, the same command goes on with it; with other settings, other weights or other images it is
refused, as a second run is while the first one writes there. If the file already exists and was made with the
same settings, weights and images, the command succeeds at once; no other file is overwritten. Several
processes share the work as in mrcnn-jax evaluate, if all of them see the folder of --output
(docs/multi_host.md).

--input converts a file of Detectron2's (box_proposals.pkl of its evaluation, PROPOSAL_FILES of its configs),
or of Detectron's; it is read without running any code in it.

The file is an uncompressed .npz with ids, offsets, boxes (x1 y1 x2 y2 in pixels of the original image) and
objectness (logits), see mrcnn_jax/proposals.py.
"""

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config import Config
from mrcnn_jax.config.paths import check_data_paths
from mrcnn_jax.weights.zoo_models import run_config

if TYPE_CHECKING:
    from mrcnn_jax.inference.partial_proposals import PartialProposals
    from mrcnn_jax.inference.proposer import Proposer

_FINDINGS = 10  # problems in the data that are printed

_override = command_line.define_overrides()
_WORKDIR: Any = flags.DEFINE_string(
    "workdir", None, "directory of the trained run, or a published model's name (docs/zoo.md)"
)
_SPLIT: Any = flags.DEFINE_enum("split", None, ["train", "val"], "training or validation images")
_COCO: Any = flags.DEFINE_string(
    "coco", None, "COCO file, with or without annotations, that lists the images, instead of --split"
)
_IMAGES: Any = flags.DEFINE_string("images", None, "folder that has the images of --coco")
_INPUT: Any = flags.DEFINE_string("input", None, "file of Detectron2's proposals to convert, instead")
_OUTPUT = flags.DEFINE_string("output", None, "file to write, .npz", required=True)
_hosts = command_line.define_hosts(handle_sigterm=False)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images per batch; the run's if not given", lower_bound=1
)


class _Images(NamedTuple):
    """The images to find proposals of."""

    name: str
    ids: np.ndarray  # [N] int64
    sizes: np.ndarray  # [N 2] int32: height and width
    pixels: Callable[[int], np.ndarray]  # of the image at an index


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if _INPUT.value:
        if any((_WORKDIR.value, _SPLIT.value, _COCO.value, _IMAGES.value)):
            raise ValueError(
                "--input converts a file; it cannot be combined with --workdir, --split, --coco or --images"
            )
        _check_output(output)
        if output.exists():
            raise _already_exists(output)
        _convert(Path(_INPUT.value), output)
    else:
        with _hosts(partial(_check_arguments, output)):
            _propose(output)


def _check_output(output: Path) -> None:
    command_line.check_output("output", output)
    if output.suffix != ".npz":
        raise ValueError(f"--output={output}: must end in .npz")


def _already_exists(output: Path, details: str = "; ") -> ValueError:
    return ValueError(f"--output={output}: already exists{details}remove it, or choose another file")


def _convert(path: Path, output: Path) -> None:
    from mrcnn_jax.proposals import write_proposals
    from mrcnn_jax.weights.detectron2_proposals import read_detectron2_proposals

    count = write_proposals(output, read_detectron2_proposals(path))
    print(f"{count} proposals written to {output}")


def _check_arguments(output: Path) -> None:
    """Raises ValueError or OSError for what is missing, before a published model is downloaded."""
    from mrcnn_jax.proposals import read_made_with

    _check_output(output)
    if not _WORKDIR.value or bool(_SPLIT.value) == bool(_COCO.value):
        raise ValueError(
            "give --workdir and --split, or --workdir, --coco and --images, to make proposals, or --input to "
            "convert a file of them"
        )
    if bool(_COCO.value) != bool(_IMAGES.value):
        raise ValueError("--coco and --images must be given together")
    if output.exists() and read_made_with(output) is None:
        raise _already_exists(output)
    config = _override(run_config(_WORKDIR.value))
    if _SPLIT.value:
        check_data_paths(config, _SPLIT.value)
    elif not Path(_IMAGES.value).is_dir():
        raise ValueError(f"--images={_IMAGES.value}: there is no such folder")


def _propose(output: Path) -> None:
    import jax

    from mrcnn_jax.distributed import hosts
    from mrcnn_jax.distributed.agreement import becomes_true, check_same_arrays, check_same_config
    from mrcnn_jax.inference.partial_proposals import PartialProposals, begin_proposals, partial_folder
    from mrcnn_jax.inference.proposer import check_proposes, load_proposer
    from mrcnn_jax.runs.description import read_run
    from mrcnn_jax.weights.zoo import workdir_of

    with hosts.fail_together():
        workdir = workdir_of(_WORKDIR.value)
        config = _override(read_run(workdir).config)
        check_proposes(config.model)
        images = _open_images(config, report=hosts.is_main_process())
        proposer = load_proposer(
            workdir,
            step=_STEP.value,
            batch_size=_BATCH_SIZE.value or config.test.batch_size,
            config=config,
            split=_SPLIT.value or "val",
        )
        made_with = _made_with(workdir, proposer, images)
    check_same_config(proposer.config)
    check_same_arrays("images to propose for", images.ids, images.sizes)
    check_same_arrays("checkpoints and batch sizes", np.array([proposer.step, proposer.batch_size]))
    made_with = hosts.all_gather(made_with)[0]  # hosts may have copies of the weights from different times

    with hosts.fail_together():
        finished = hosts.is_main_process() and _is_finished(output, made_with)
    if hosts.all_gather(finished)[0]:
        _print(f"{output}: is already there, made with the same weights, settings and images")
        return
    with hosts.fail_together():
        if hosts.is_main_process():
            begin_proposals(output, made_with)
    with hosts.fail_together():
        if not becomes_true(partial_folder(output).is_dir):
            raise ValueError(
                f"{output.parent}: the folder of --output must be shared by all processes, but the files of "
                "process 0 are not visible to this process"
            )
        found = PartialProposals(output, process=jax.process_index())
    _print(f"step {proposer.step} on the {len(images.ids)} images of {images.name}")
    _find(proposer, images, found)

    ids = images.ids.tolist()
    with hosts.fail_together():
        if hosts.is_main_process():
            if not becomes_true(lambda: not found.missing(ids)):
                raise ValueError(
                    f"{found.folder}: lacks the proposals of {found.missing(ids)} images that another "
                    "process has written; the folder must be shared by all processes"
                )
            count = found.write(ids)
            print(f"{count} proposals of {len(ids)} images written to {output}")


def _open_images(config: Config, *, report: bool) -> _Images:
    from mrcnn_jax.data.findings import summary
    from mrcnn_jax.data.image_list import read_image_list
    from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
    from mrcnn_jax.pixels import PixelFormat

    if _COCO.value:
        listed = read_image_list(Path(_COCO.value), Path(_IMAGES.value), sizes=True)
        ids, sizes = np.array(listed.ids, np.int64), np.array(listed.sizes, np.int32)
        return _Images(str(listed.path), ids, sizes, partial(listed.pixels, pixels=PixelFormat.of(config)))
    source = open_data_source(config) if _SPLIT.value == "train" else open_validation_source(config)
    if source.findings and report:
        print(summary(source.findings, rows=_FINDINGS), flush=True)
    return _Images(source.name, source.ids, source.sizes, lambda index: source.read(index).pixels)


def _made_with(workdir: Path, proposer: "Proposer", images: _Images) -> dict[str, Any]:
    """What the proposals depend on; batches of another size and other numbers of processes give the same."""
    from mrcnn_jax.config.fields import SETTINGS
    from mrcnn_jax.config.io import flatten
    from mrcnn_jax.runs.checkpoint import time_of_weights

    assert proposer.step is not None  # it was loaded from a checkpoint
    arrays = images.ids.astype(np.int64).tobytes() + images.sizes.astype(np.int32).tobytes()
    limits = "rpn_pre_nms", "rpn_post_nms", "rpn_nms_iou"
    section = "train" if _SPLIT.value == "train" else "test"
    return (
        {
            "step": proposer.step,
            "time of the weights": time_of_weights(workdir, proposer.step),
            "number of images": len(images.ids),
            "digest of the images' ids and sizes": hashlib.sha256(arrays).hexdigest(),
        }
        | {f"--config.{section}.{name}": getattr(proposer.config.test, name) for name in limits}
        | {
            f"--config.{name}": value
            for name, value in flatten(proposer.config).items()
            if name.startswith(("model.", "data."))
            and (SETTINGS[name].decides != "neither" or name == "model.dtype")
        }
    )


def _is_finished(output: Path, made_with: dict[str, Any]) -> bool:
    """Whether ``output`` is the file that would be written; raises ValueError if it is another one."""
    from mrcnn_jax.inference.partial_proposals import remove_partial
    from mrcnn_jax.inference.partial_results import describe_differences
    from mrcnn_jax.proposals import read_made_with

    if not output.exists():
        return False
    if (there := read_made_with(output)) is None:
        raise _already_exists(output)
    if lines := describe_differences(made_with, there):
        raise _already_exists(output, f", made with other settings:{lines}\n")
    remove_partial(output)  # of a process that was killed when the file was there
    return True


def _find(proposer: "Proposer", images: _Images, found: "PartialProposals") -> None:
    """Finds the proposals of this process's share of the images that are not done."""
    import jax

    from mrcnn_jax.distributed import hosts
    from mrcnn_jax.runtime.progress import progress_bar

    ids, processes = images.ids.tolist(), jax.process_count()
    done = {index for index, image_id in enumerate(ids) if found.is_done(image_id)}
    if done:
        _print(f"{len(done)} of {len(ids)} images are done already ({found.folder})")
    share = jax.process_index(), processes
    try:
        with found, hosts.fail_together():
            stream = proposer.stream(images.pixels, images.sizes, done=done, share=share)
            for index, proposals in progress_bar(
                stream,
                total=-(-len(ids) // processes),
                initial=len(done) // processes,
                hidden=not hosts.is_main_process(),
            ):
                found.append(ids[index], proposals)
    except BaseException:
        count = sum(map(found.is_done, ids))
        print(
            f"the proposals of {count} of {len(ids)} images are in {found.folder}; run the same command to "
            "continue",
            file=sys.stderr,
        )
        raise


def _print(line: str) -> None:
    from mrcnn_jax.distributed import hosts

    if hosts.is_main_process():
        print(line, flush=True)
