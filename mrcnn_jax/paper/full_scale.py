"""The commands that train a table's rows on COCO, with the paper's numbers beside them, to be printed."""

from collections.abc import Iterator

from mrcnn_jax.config import Config, ModelConfig
from mrcnn_jax.paper.tables import Row, Table
from mrcnn_jax.weights.zoo_models import named_config

# What an RPN by itself has: no heads, and so none of their variants.
RPN_ALONE = {"box": False, "mask": False, "keypoint": False} | {
    name: getattr(ModelConfig(), name)
    for name in ("roi_pooling", "box_agnostic", "mask_loss", "mask_agnostic", "mask_fcs")
}


def commands(table: Table, folder: str) -> Iterator[str]:
    """The lines of a shell script with a comment above each row.

    Rows with the same backbone share the proposals of one RPN, which is trained by itself (paper 3.1).
    """
    yield f"# Table {table.number}: {table.title}"
    yield f"# The paper: {table.claim}."
    done = set()
    for row in table.rows:
        config = named_config(f"paper/{row.config}")
        backbone = backbone_name(config)
        if backbone not in done:
            done.add(backbone)
            yield from _rpn(row, config, f"{folder}/rpn_{backbone}", backbone)
        yield from _row(row, f"{folder}/{row.config}", backbone)


def backbone_name(config: Config) -> str:
    """What rows must have in common to share proposals: the backbone and its data, such as "r50_c4"."""
    model = config.model
    name = f"{'x' if model.backbone_groups > 1 else 'r'}{model.backbone_depth}_{model.features}"
    return f"{name}_persons" if "person" in config.data.train_annotations else name


def _rpn(row: Row, config: Config, workdir: str, backbone: str) -> Iterator[str]:
    changes = " ".join(
        f"--config.model.{name}={value}"
        for name, value in RPN_ALONE.items()
        if getattr(config.model, name) != value
    )
    yield "\n# RPN by itself, and its proposals"
    yield f"mrcnn-jax train --config=paper/{row.config} --workdir={workdir} \\\n    {changes}"
    for split in ("train", "val"):
        output = f"{config.data.root}/{proposals_file(backbone, split)}"
        yield f"mrcnn-jax propose --workdir={workdir} --split={split} --output={output}"


def _row(row: Row, workdir: str, backbone: str) -> Iterator[str]:
    numbers = ", ".join(f"{metric} {value}" for metric, value in row.paper.items())
    yield f"\n# {row.label}: the paper has {numbers}"
    yield (
        f"mrcnn-jax train --config=paper/{row.config} --workdir={workdir} --config.model.rpn=False \\\n"
        f"    --config.data.train_proposals={proposals_file(backbone, 'train')} "
        f"--config.data.val_proposals={proposals_file(backbone, 'val')}"
    )
    yield f"mrcnn-jax evaluate --workdir={workdir}"


def proposals_file(backbone: str, split: str) -> str:
    """The path of a file of proposals, relative to the data's root."""
    return f"proposals_{backbone}_{split}.npz"
