"""Converts what predict and evaluate found to the formats of labelling tools: labelme, CVAT, YOLO and others.

    mrcnn-jax from_coco out/detections.json --images=photos --format=labelme --output=photos

The file is a COCO results list. Its images are found by their file_name, or, if it has none, by their
image_id in --annotations, a COCO file. Images are neither copied nor changed. No file is replaced, and if
anything is wrong, none is written. See docs/tools.md for what each format keeps, and how each tool takes the
result.
"""

from pathlib import Path

from absl import flags

ARGUMENTS = "the COCO results list"

_IMAGES = flags.DEFINE_string("images", None, "folder of the images", required=True)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["coco", "labelme", "cvat", "label_studio", "yolo", "voc", "masks"],
    "format to write",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "folder to write into, made if needed; no file in it is replaced", required=True
)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold", 0.5, "leave out objects with a lower score", lower_bound=0, upper_bound=1
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO file of the images and categories, for results without file_name or category, and for the names "
    "of keypoints; images without objects are then written, too",
)
_KEYPOINTS = flags.DEFINE_bool(
    "keypoints",
    True,
    "convert keypoints, too, where the format has a place for them; yolo then has poses without masks",
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    0.75,
    "pixels by which polygons may miss a mask's outline; 0 keeps it exactly, with every corner of its pixels",
    lower_bound=0,
)
_IMAGE_URL = flags.DEFINE_string(
    "image_url",
    None,
    "label_studio: what comes before an image's name in its address; if not given, where Label Studio serves "
    "local files of the folder that the images' folder is in",
)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"one COCO results list is needed, got {len(arguments)}; see --help")
    from mrcnn_jax.data.findings import printable
    from mrcnn_jax.tool_formats.export import Options, export
    from mrcnn_jax.tool_formats.found import Found

    found = Found(
        Path(arguments[0]),
        Path(_IMAGES.value),
        annotations=None if _ANNOTATIONS.value is None else Path(_ANNOTATIONS.value),
        score_threshold=_SCORE_THRESHOLD.value,
        keypoints=_KEYPOINTS.value,
    )
    options = Options(tolerance=_TOLERANCE.value, image_url=_IMAGE_URL.value)
    export(found, Path(_OUTPUT.value), _FORMAT.value, options)
    if found.keypoints_are_numbered:
        print("keypoints are called keypoint_1 and so on; --annotations=FILE.json names them")
    for what, count in sorted(found.left_out.items()):
        print(f"left out: {printable(what)} ({count})")
    print(f"{printable(_OUTPUT.value)}: {found.given} objects in {len(found)} images, as {_FORMAT.value}")
