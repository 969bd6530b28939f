"""Writes the proposals of a data set to a file, from which models without an RPN are trained.

    mrcnn-jax propose --workdir=runs/rpn --split=train --output=data/shapes/proposals_train.npz
    mrcnn-jax propose --workdir=runs/rpn --split=val --output=data/shapes/proposals_val.npz
    mrcnn-jax propose --input=box_proposals.pkl --output=proposals.npz

The first two run the region proposal network of a trained run, or of a published model, on all images of
its training or validation data; --config.data.root and others name other data. An image has as many
proposals as its use takes: at most --config.train.rpn_post_nms for training, --config.test.rpn_post_nms for
validation. A model without an RPN (model.rpn is False) is trained on them with --config.data.train_proposals
and evaluated with --config.data.val_proposals, which are relative to --config.data.root.

--input converts a file of Detectron2's (box_proposals.pkl of its evaluation, PROPOSAL_FILES of its configs),
or of Detectron's; it is read without running any code in it.

The file is an uncompressed .npz with ids, offsets, boxes (x1 y1 x2 y2 in pixels of the original image) and
objectness (logits), see mrcnn_jax/proposals.py. It is written when all images are done, and never over
another file.
"""

from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.config.paths import check_data_paths
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import run_config

_FINDINGS = 10  # problems in the data that are printed

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the trained run, or a published model's name (docs/zoo.md)"
)
_SPLIT: Any = flags.DEFINE_enum("split", None, ["train", "val"], "training or validation images")
_INPUT = flags.DEFINE_string("input", None, "file of Detectron2's proposals to convert, instead")
_OUTPUT = flags.DEFINE_string("output", None, "file to write, .npz", required=True)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images per batch; the run's if not given", lower_bound=1
)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    command_line.check_output("output", output)
    if output.suffix != ".npz":
        raise ValueError(f"--output={output}: must end in .npz")
    if output.exists():
        raise ValueError(f"--output={output}: already exists; remove it, or choose another file")
    if _INPUT.value:
        if _WORKDIR.value or _SPLIT.value:
            raise ValueError("--input converts a file; it cannot be combined with --workdir or --split")
        _convert(Path(_INPUT.value), output)
    elif _WORKDIR.value and _SPLIT.value:
        _propose(_WORKDIR.value, _SPLIT.value, output)
    else:
        raise ValueError("give --workdir and --split to make proposals, or --input to convert a file of them")


def _convert(path: Path, output: Path) -> None:
    from mrcnn_jax.proposals import write_proposals
    from mrcnn_jax.weights.detectron2_proposals import read_detectron2_proposals

    count = write_proposals(output, read_detectron2_proposals(path))
    print(f"{count} proposals written to {output}")


def _propose(name: str, split: Any, output: Path) -> None:
    config = _override(run_config(name))
    check_data_paths(config, split)
    setup()
    from mrcnn_jax.data.findings import summary
    from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
    from mrcnn_jax.inference.proposer import check_proposes, load_proposer
    from mrcnn_jax.proposals import write_proposals
    from mrcnn_jax.runtime.progress import progress_bar

    check_proposes(config.model)
    source = open_data_source(config) if split == "train" else open_validation_source(config)
    if source.findings:
        print(summary(source.findings, rows=_FINDINGS), flush=True)
    batch_size = _BATCH_SIZE.value or config.test.batch_size
    proposer = load_proposer(name, step=_STEP.value, batch_size=batch_size, config=config, split=split)
    print(f"step {proposer.step} on the {len(source.ids)} images of {source.name}", flush=True)
    found = proposer.stream(lambda index: source.read(index).pixels, source.sizes)
    with_bar = progress_bar(found, total=len(source.ids))
    count = write_proposals(output, ((int(source.ids[index]), image) for index, image in with_bar))
    print(f"{count} proposals of {len(source.ids)} images written to {output}")
