"""The commands that train a table's rows on COCO, with the paper's numbers beside them, to be printed."""

import dataclasses
import functools
import shlex
from collections.abc import Iterator

from mrcnn_jax.config import Config, ModelConfig, TestConfig, paper
from mrcnn_jax.paper.full_tables import (
    BEGINS_FROM,
    END_TO_END,
    FULL_TABLES,
    TEACHERS,
    UNPUBLISHED,
    FullTable,
)
from mrcnn_jax.weights.zoo_models import named_config

# What an RPN by itself has: no heads, and so none of their variants.
RPN_ALONE = {"box": False, "mask": False, "keypoint": False} | {
    name: getattr(ModelConfig(), name)
    for name in ("roi_pooling", "box_agnostic", "mask_loss", "mask_agnostic", "mask_convs", "mask_fcs")
}


# The ImageNet weights of the paper's backbones, by depth and groups.
_BACKBONES = {
    (50, 1): "detectron2/MSRA/R-50",
    (101, 1): "detectron2/MSRA/R-101",
    (101, 64): "detectron2/FAIR/X-101-64x4d",
    (152, 32): "detectron2/FAIR/X-152-32x8d-IN5k",
}


def commands(table: FullTable, folder: str) -> Iterator[str]:
    """The lines of a shell script with a comment above each row.

    Rows with the same backbone share the proposals of one RPN, which is trained by itself (paper 3.1), and
    rows that are trained alike, of whichever table, share a run. So do the scripts of all tables: what one
    has done, the others leave as it is.
    """
    yield f"# Table {table.number}: {table.title}"
    yield f"# The paper: {table.claim}."
    if table.note:
        yield f"# {table.note}"
    done: set[str] = set()
    for row in table.rows:
        numbers = ", ".join(f"{metric} {value}" for metric, value in row.paper.items())
        yield f"\n# {row.label}: the paper has {numbers}" + (f" ({table.measured})" if table.measured else "")
        if row.config in UNPUBLISHED:
            yield "# Its backbone was not published; otherwise its commands are those of the row above."
            continue
        owner = _owner(row.config)
        workdir = f"{folder}/{owner}"
        if owner not in done:
            done.add(owner)
            yield from _train(owner, folder, done)
        yield _evaluate(row.config, owner, workdir)


def backbone_name(config: Config) -> str:
    """What rows must have in common to share proposals: the backbone and its data, such as "r50_c4"."""
    model = config.model
    name = f"{'x' if model.backbone_groups > 1 else 'r'}{model.backbone_depth}_{model.features}"
    return f"{name}_persons" if "person" in config.data.train_annotations else name


def proposals_file(backbone: str, split: str) -> str:
    """The path of a file of proposals, relative to the data's root."""
    return f"proposals_{backbone}_{split}.npz"


def _owner(name: str) -> str:
    """The config of the first row, of any table, that is trained as the row ``name`` is."""
    return next(other for other in _names() if _training(other) == _training(name))


def _names() -> list[str]:
    return [row.config for table in FULL_TABLES.values() for row in table.rows]


@functools.cache
def _training(name: str) -> tuple[Config, bool, str | None]:
    """All that determines a row's run: settings apart from the test's, the RPN, and where it begins."""
    config = dataclasses.replace(named_config(f"paper/{name}"), test=TestConfig())
    return config, name in END_TO_END, BEGINS_FROM.get(name)


def _train(name: str, folder: str, done: set[str]) -> Iterator[str]:
    """The commands of a row's training. An RPN that ``done`` has is not repeated; others are added to it."""
    config = named_config(f"paper/{name}")
    if name in TEACHERS:
        yield from _annotate(config, f"{folder}/{_owner(TEACHERS[name])}", folder)
    begin = _begin(config)
    if (earlier := BEGINS_FROM.get(name)) is not None:
        yield f"# It begins from the model of {earlier}, whose commands must be run before."
        begin = f"--init={folder}/{_owner(earlier)}"
    command = f"mrcnn-jax train --config=paper/{name} --workdir={folder}/{name}"
    if name in END_TO_END:
        yield f"{command} \\\n    {begin}"
        return
    rpn = _rpn_name(name)
    if f"rpn_{rpn}" not in done:
        done.add(f"rpn_{rpn}")
        yield from _rpn(rpn, folder)
    yield (
        f"{command} --config.model.rpn=False \\\n    {begin} \\\n"
        f"    --config.data.train_proposals={proposals_file(rpn, 'train')} "
        f"--config.data.val_proposals={proposals_file(rpn, 'val')}"
    )


def _evaluate(name: str, owner: str, workdir: str) -> str:
    """The command that evaluates a row on the run of its owner, whose settings of the test may be others."""
    ours, theirs = (dataclasses.asdict(named_config(f"paper/{item}").test) for item in (name, owner))
    changes = _test_flags({field: value for field, value in ours.items() if value != theirs[field]})
    output = f" --output={workdir}/evaluation_{name}.json \\\n    {changes}" if changes else ""
    return f"mrcnn-jax evaluate --workdir={workdir}{output}"


def _test_flags(values: dict[str, object]) -> str:
    return " ".join(shlex.quote(f"--config.test.{field}={value}") for field, value in values.items())


def _begin(config: Config) -> str:
    weights = _BACKBONES[config.model.backbone_depth, config.model.backbone_groups]
    return f"--config.model.backbone_weights={weights}"


def _rpn_name(name: str) -> str:
    """The name of the RPN whose proposals a row is trained on: that of the backbone, or the row's own."""
    config = named_config(f"paper/{name}")
    return name if "cityscapes" in config.data.root else backbone_name(config)


def _rpn(rpn: str, folder: str) -> Iterator[str]:
    name = next(other for other in _names() if other not in END_TO_END and _rpn_name(other) == rpn)
    config, workdir = named_config(f"paper/{name}"), f"{folder}/rpn_{rpn}"
    begin = _begin(config)
    if name in BEGINS_FROM:
        begin = f"--init={folder}/rpn_{_rpn_name(BEGINS_FROM[name])}"
    changes = " ".join(
        f"--config.model.{field}={value}"
        for field, value in RPN_ALONE.items()
        if getattr(config.model, field) != value
    )
    yield "# RPN by itself, and its proposals"
    yield f"mrcnn-jax train --config=paper/{name} --workdir={workdir} \\\n    {begin} \\\n    {changes}"
    for split in ("train", "val"):
        output = f"{config.data.root}/{proposals_file(rpn, split)}"
        yield f"mrcnn-jax propose --workdir={workdir} --split={split} --output={output}"


def _annotate(config: Config, teacher: str, folder: str) -> Iterator[str]:
    """The commands that annotate the further data set of a config with what a model finds in it."""
    data, augmented = config.data, Config()
    paper.augment_testing(augmented)
    flags = _test_flags({"scales": augmented.test.scales, "flip": augmented.test.flip})
    (images,), (annotations,) = data.more_train_images, data.more_train_annotations
    listed, found = f"{data.root}/annotations/image_info_{images}.json", f"{folder}/{images}"
    output = f"{data.root}/{annotations}"
    yield "# What the teacher finds in the unlabelled images, with augmentation, becomes their annotations."
    yield (
        f"test -e {output} ||\n"
        f"    mrcnn-jax predict --workdir={teacher} --output={found} --pictures=none \\\n"
        f"    --annotations={listed} \\\n    {flags} {data.root}/{images}"
    )
    yield (
        f"test -e {output} ||\n"
        f"    mrcnn-jax distill --results={found}/detections.json --images={listed} \\\n"
        f"    --like={data.root}/{data.train_annotations} --output={output}"
    )
