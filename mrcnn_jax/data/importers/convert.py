"""Reads annotations of any supported format."""

from dataclasses import dataclass
from pathlib import Path

from mrcnn_jax.data.folders import is_coco
from mrcnn_jax.data.importers.builder import CocoBuilder
from mrcnn_jax.data.importers.cityscapes import add_cityscapes, image_folder
from mrcnn_jax.data.importers.labelme import add_labelme
from mrcnn_jax.data.importers.masks import add_masks
from mrcnn_jax.data.importers.recognise import (
    files_of_format,
    has_nothing_but_images,
    recognise,
    what_it_looks_like,
)
from mrcnn_jax.data.importers.via import add_via
from mrcnn_jax.data.importers.voc import add_voc, dataset_folder
from mrcnn_jax.data.importers.yolo import add_yolo

FORMATS = ("labelme", "via", "voc", "yolo", "masks", "cityscapes")
_LISTED = 10  # files in a message


@dataclass(frozen=True)
class Options:
    """What a user may say about the annotations; the flags of ``mrcnn-jax to_coco``."""

    format: str = "auto"  # or one of FORMATS
    images: str | None = None  # folder of the images; None: where the format has them
    split: str | None = None  # of YOLO, Pascal VOC and Cityscapes
    category: str | None = None  # of all objects, for masks and VIA
    categories: tuple[str, ...] = ()  # all, if empty
    via_attribute: str | None = None


def convert(source: Path, options: Options) -> CocoBuilder:
    """A builder with all images and objects of ``source``, a file or a folder.

    Raises ValueError if the source or what it holds is missing, if its format is not recognised, or for an
    option that its format does not have. What is wrong with single files and entries is in ``findings``.
    """
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder")
    kind = recognise(source)
    name = options.format
    if name == "auto":
        if kind is None and is_coco(source):
            raise ValueError(
                f"{source}: is in COCO's format already; train on it with --data, the folder that also has "
                "the images"
            )
        if kind is None and has_nothing_but_images(source):
            raise ValueError(
                f"{source}: has only images, no annotations; mrcnn-jax predict finds objects in them"
            )
        if kind is None:
            raise ValueError(
                f"{source}: the format of these annotations is not recognised; --format names one of "
                f"{', '.join(FORMATS)}"
            )
        if kind.format is None:
            raise ValueError(f"{source}: {what_it_looks_like(source)}")
        name = kind.format
    _check_options(options, name)
    if source.is_dir() and name == "via" and len(files := files_of_format(source, name)) > 1:
        listed = ", ".join(str(path.relative_to(source)) for path in files[:_LISTED])
        raise ValueError(f"{source}: has {len(files)} files of the format {name}: {listed}; give one of them")
    if kind is not None and kind.format == name and (source.is_dir() or name == "yolo"):
        source = kind.source  # the one VIA file of a folder; the folder that a YOLO label file belongs to
    images = None if options.images is None else Path(options.images)

    def builder(default: Path) -> CocoBuilder:
        return CocoBuilder(default if images is None else images, categories=options.categories)

    folder = source if source.is_dir() else source.parent
    match name:
        case "labelme":
            made = builder(folder)
            add_labelme(made, source)
        case "via":
            made = builder(folder)
            add_via(made, source, attribute=options.via_attribute, category=options.category)
        case "voc":
            folder = dataset_folder(source)
            made = builder(folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder)
            add_voc(made, source, split=options.split)
        case "yolo":
            made = builder(folder)
            add_yolo(made, source, split=options.split)
        case "masks":
            made = builder(folder)
            add_masks(made, source, category=options.category)
        case "cityscapes":
            made = CocoBuilder(images or image_folder(source, options.split), categories=options.categories)
            add_cityscapes(made, source, split=options.split)
        case _:
            raise ValueError(f"format is {name!r}; it must be auto or one of {', '.join(FORMATS)}")
    return made


def _check_options(options: Options, name: str) -> None:
    """Raises ValueError for options of other formats than ``name``."""
    of_formats = {
        "split": ("yolo", "voc", "cityscapes"),
        "category": ("masks", "via"),
        "via_attribute": ("via",),
    }
    wrong = [
        f"--{option}={getattr(options, option)} is for --format={' and '.join(formats)}, not {name}"
        for option, formats in of_formats.items()
        if getattr(options, option) is not None and name not in formats
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
