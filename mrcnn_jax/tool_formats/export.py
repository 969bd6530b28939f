"""Writes results in any supported format."""

from dataclasses import dataclass
from pathlib import Path

from mrcnn_jax.tool_formats.coco import write_coco
from mrcnn_jax.tool_formats.cvat import write_cvat
from mrcnn_jax.tool_formats.folder import output_folder
from mrcnn_jax.tool_formats.found import Found
from mrcnn_jax.tool_formats.label_studio import write_label_studio
from mrcnn_jax.tool_formats.labelme import write_labelme
from mrcnn_jax.tool_formats.masks import write_masks
from mrcnn_jax.tool_formats.voc import write_voc
from mrcnn_jax.tool_formats.yolo import write_yolo

_WRITERS = {
    "coco": write_coco,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "yolo": write_yolo,
    "voc": write_voc,
    "masks": write_masks,
}
FORMATS = (*_WRITERS, "label_studio")


@dataclass(frozen=True)
class Options:
    """How objects are written."""

    tolerance: float = 0.75  # pixels by which polygons may miss the mask's outline; 0 keeps all corners
    image_url: str | None = None  # label_studio: what precedes an image's name; None: its local files


def export(found: Found, output: Path, format: str, options: Options = Options()) -> None:
    """Writes files of the ``format``, one of ``FORMATS``, into the folder ``output``: all or none.

    The folder is made if it does not exist. No file is replaced. Raises ValueError for an option that the
    format does not have, and as ``Found``, ``output_folder`` and the format's own function do.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if options.image_url is not None and format != "label_studio":
        raise ValueError(f"--image_url={options.image_url} is for --format=label_studio, not {format}")
    with output_folder(output) as folder:
        if format == "label_studio":
            write_label_studio(found, folder, tolerance=options.tolerance, image_url=options.image_url)
        else:
            _WRITERS[format](found, folder, tolerance=options.tolerance)
