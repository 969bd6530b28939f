"""Converts annotations of labelme, VIA, VOC, YOLO, Cityscapes or folders of masks to COCO's format.

    mrcnn-jax to_coco photos --output=annotations.json

The format is recognised by the files' content, or given as --format. Images are neither copied nor changed:
the result names them relative to their folder, --images, and has their upright sizes. All that is wrong is
listed, as an error, or with --skip_bad as left out. See docs/own_data.md for what each format keeps.
"""

import shlex
from pathlib import Path

from absl import flags

from mrcnn_jax import command_line

ARGUMENTS = "the folder or file of annotations"

_OUTPUT = flags.DEFINE_string("output", None, "COCO file to write; must not exist", required=True)
_FORMAT = flags.DEFINE_enum(
    "format",
    "auto",
    ["auto", "labelme", "via", "voc", "yolo", "masks", "cityscapes"],
    "format of the annotations",
)
_IMAGES = flags.DEFINE_string(
    "images", None, "folder of the images, if they are not where the format has them"
)
_SPLIT = flags.DEFINE_string(
    "split", None, "yolo, voc, cityscapes: the split to convert, such as train or val"
)
_CATEGORY = flags.DEFINE_string("category", None, "masks and via: the category of all objects")
_CATEGORIES = flags.DEFINE_list(
    "categories", [], "names of the categories to keep, in the order of their ids; all if not given"
)
_VIA_ATTRIBUTE = flags.DEFINE_string(
    "via_attribute", None, "via: the region attribute that is the category, if there are several"
)
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "list what is wrong and leave it out, instead of failing")


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"one folder or file of annotations is needed, got {len(arguments)}; see --help")
    source, output = Path(arguments[0]), Path(_OUTPUT.value)
    command_line.check_output("output", output)
    if output.exists():
        raise ValueError(f"--output={output}: exists; it is not overwritten")
    from mrcnn_jax.data.findings import printable, raise_errors, summary
    from mrcnn_jax.data.importers.convert import Options, convert
    from mrcnn_jax.data.importers.write import count_categories, write_new

    builder = convert(
        source,
        Options(
            format=_FORMAT.value,
            images=_IMAGES.value,
            split=_SPLIT.value,
            category=_CATEGORY.value,
            categories=tuple(_CATEGORIES.value),
            via_attribute=_VIA_ATTRIBUTE.value,
        ),
    )
    if not _SKIP_BAD.value:
        remedy = "--skip_bad leaves them out"
        if builder.missing_images:
            remedy += ", --images=FOLDER says where the images are"
        raise_errors(str(source), builder.findings, remedy=remedy)
    content = builder.content()
    if not content["annotations"]:
        details = f"\n{summary(builder.findings)}" if builder.findings else ""
        raise ValueError(f"{source}: there are no objects to write{details}")
    write_new(output, content)
    if builder.findings:
        print(summary(builder.findings))
    print(count_categories(content))
    for what, count in sorted(builder.left_out.items()):
        print(f"left out: {printable(what)} ({count})")
    print(
        f"{printable(str(output))}: {len(content['images'])} images in {printable(str(builder.images))}",
        end=", ",
    )
    print(f"{len(content['annotations'])} objects")
    print(printable(_how_to_train(output, builder.images)))


def _how_to_train(output: Path, images: Path) -> str:
    """The flags for training on the dataset in ``output``, or for evaluating on it if it is called so."""
    from mrcnn_jax.data.folders import find_layout, split_of

    split = "train" if split_of(output.name) in ("train", None) else "val"
    try:
        found = find_layout(output.parent)
    except ValueError:  # the images are elsewhere, or there are other datasets
        found = {}
    if found.get(f"{split}_annotations") == output.name:
        return f"To train on it: --data={shlex.quote(str(output.parent))}"
    flags = (
        f"--config.data.root=. --config.data.{split}_images={shlex.quote(str(images))} "
        f"--config.data.{split}_annotations={shlex.quote(str(output))}"
    )
    if split == "val":
        return f"To evaluate on it: {flags}"
    return f"To train on it: {flags}, and --config.train.eval_every=0 without a validation set"
