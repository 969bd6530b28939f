"""The commands that train a table's rows on COCO, with the paper's numbers beside them, to be printed."""

from collections.abc import Iterator

from mrcnn_jax.config import Config
from mrcnn_jax.paper.tables import Row, Table
from mrcnn_jax.weights.zoo_models import named_config

_RPN_ALONE = "--config.model.box=False --config.model.mask=False --config.model.keypoint=False"


def commands(table: Table, folder: str) -> Iterator[str]:
    """The lines of a shell script with a comment above each row.

    Rows with the same backbone share the proposals of one RPN, which is trained by itself (paper 3.1).
    """
    yield f"# Table {table.number}: {table.title}"
    yield f"# The paper: {table.claim}."
    proposals: dict[str, str] = {}
    for row in table.rows:
        config = named_config(f"paper/{row.config}")
        backbone = backbone_name(config)
        if backbone not in proposals:
            proposals[backbone] = f"{folder}/proposals_{backbone}"
            yield from _rpn(row, f"{folder}/rpn_{backbone}", proposals[backbone])
        yield from _row(row, f"{folder}/{row.config}", proposals[backbone])


def backbone_name(config: Config) -> str:
    """What rows must have in common to share proposals: the backbone and its data, such as "r50_c4"."""
    model = config.model
    name = f"{'x' if model.backbone_groups > 1 else 'r'}{model.backbone_depth}_{model.features}"
    return f"{name}_persons" if "person" in config.data.train_annotations else name


def _rpn(row: Row, workdir: str, proposals: str) -> Iterator[str]:
    yield "\n# RPN by itself, and its proposals"
    yield f"mrcnn-jax train --config=paper/{row.config} --workdir={workdir} \\\n    {_RPN_ALONE}"
    for split in ("train", "val"):
        yield f"mrcnn-jax propose --workdir={workdir} --split={split} --output={proposals}_{split}.npz"


def _row(row: Row, workdir: str, proposals: str) -> Iterator[str]:
    numbers = ", ".join(f"{metric} {value}" for metric, value in row.paper.items())
    yield f"\n# {row.label}: the paper has {numbers}"
    yield (
        f"mrcnn-jax train --config=paper/{row.config} --workdir={workdir} \\\n    --config.model.rpn=False "
        f"--config.data.train_proposals={proposals}_train.npz --config.data.val_proposals={proposals}_val.npz"
    )
    yield f"mrcnn-jax evaluate --workdir={workdir}"
