"""Finds objects in images; writes pictures with the objects drawn, and a COCO results list.

    mrcnn-jax predict --workdir=runs/shapes --output=out photo.jpg folder/
    mrcnn-jax predict --workdir=runs/shapes --output=out --pictures=none --save_dataset=labels.json folder/

Writes out/photo.png for photo.jpg, and out/detections.json, which pycocotools' loadRes takes. Only pictures
of earlier runs are replaced: if another file has the name, the picture is written to photo-2.png.

--save_dataset=FILE also writes a COCO dataset ("images", "categories", "annotations"), which labelling tools
import as annotations to correct: the objects that are drawn, with their masks as polygons.

Until all images are done, their results are in out/detections.partial.jsonl, one line for each image. If the
run is interrupted, the same command goes on with it: images that are done are skipped. With other settings,
other weights or other images it is refused, so that no results are lost, as a second run is while the first
one writes there.

    mrcnn-jax predict --workdir=detectron2/mask_rcnn_r50_fpn_3x --output=out --pictures=none \\
        --coco=annotations/image_info_test-dev2017.json test2017/

finds objects in the images that a COCO file lists, in the folder that has them, and writes detections.json
as COCO's server takes it: with the ids of the file, and without fields that are not COCO's. The server wants
it as detections_test-dev2017_NAME_results.json in a zip file.

    mrcnn-jax predict --workdir=runs/buildings --output=out --tile=1024 --overlap=128 --geojson city.tif

cuts large images into overlapping tiles, finds objects in each, and joins what the seams cut
(docs/large_images.md). --geojson writes out/city.geojson, in the coordinates of the file.

    mrcnn-jax predict --workdir=runs/shapes --video=in.mp4 --output=out.mp4 --tracks

draws the objects in a video, with its sound, and writes out.jsonl, a line of JSON for each frame with its
time and its objects (docs/video.md). --output=out.jsonl writes only that. --tracks numbers each object in all
of its frames. An existing file is never replaced. If it is interrupted, out.partial.mp4 and
out.partial.jsonl have the frames so far.

Images that cannot be read and folders without images are reported and skipped, and the exit code is 1. If no
image can be read at all, nothing is written. A video's frames that are damaged, or cannot be decoded, are
reported alike; those that the decoder could repair are used.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import model_config

if TYPE_CHECKING:
    from mrcnn_jax.data.image_list import ImageList
    from mrcnn_jax.inference.detector import Detector
    from mrcnn_jax.inference.partial_results import ImageResults

ARGUMENTS = "image files and folders of images"

_PARTIAL = "detections.partial.jsonl"

_override = command_line.define_overrides()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory of the trained run, a published model's name (docs/zoo.md), or a file that mrcnn-jax export "
    "wrote (docs/deployment.md)",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "directory for the pictures and detections.json; detections.json and pictures of earlier runs are "
    "replaced, other files are kept (photo-2.png is written beside photo.png); with --video the new video",
    required=True,
)
_STEP = command_line.define_step()
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "images per batch", lower_bound=1)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    0.5,
    "draw objects with at least this score, also in --save_dataset; detections.json has all that the model "
    "keeps (config.test.score_threshold); with --tracks, follow such objects",
    lower_bound=0,
    upper_bound=1,
)
_PICTURES: Any = flags.DEFINE_enum(
    "pictures", "png", ["png", "none"], "format of the pictures; none writes no pictures"
)
_DATASET = flags.DEFINE_string(
    "save_dataset", None, "also write a COCO dataset of the objects to this file, which is replaced"
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO file to take image ids from, by file name; without it ids are 1, 2, 3 ... in order",
)
_TILE = flags.DEFINE_integer(
    "tile",
    None,
    "cut images into square tiles with this many pixels a side, for images that are too large to be resized "
    "to the model's size, or to fit in memory (docs/large_images.md)",
    lower_bound=64,
)
_OVERLAP = flags.DEFINE_integer(
    "overlap", 128, "with --tile: pixels by which tiles overlap; as large as most objects", lower_bound=0
)
_GEOJSON = flags.DEFINE_boolean(
    "geojson",
    False,
    "also write the objects that are drawn as GeoJSON, photo.geojson for photo.tif, in the coordinates of "
    "the file; without a georeference in pixels",
)
_COCO = flags.DEFINE_string(
    "coco",
    None,
    "COCO file, with or without annotations: find objects in the images that it lists, in the one folder "
    "given, and write detections.json for COCO's server",
)
_VIDEO = flags.DEFINE_string(
    "video", None, "find objects in the frames of this video, in place of images (docs/video.md)"
)
_TRACKS = flags.DEFINE_boolean(
    "tracks", False, "with --video: follow objects from frame to frame, and number them"
)

_OF_IMAGES = ("pictures", "save_dataset", "annotations", "tile", "overlap", "geojson", "coco")


def main(arguments: list[str]) -> int:
    if _VIDEO.value is not None:
        return _predict_video(Path(_VIDEO.value), Path(_OUTPUT.value), arguments)
    if _TRACKS.value:
        raise ValueError("--tracks: objects are followed in a video only; name it by --video")
    from mrcnn_jax.channel_files import NPY_SUFFIX
    from mrcnn_jax.image_formats import suffixes
    from mrcnn_jax.inference.files import (
        DETECTIONS,
        describe_earlier_pictures,
        find_images,
        output_paths,
        passed_over,
        picture_paths,
        read_image_ids,
    )
    from mrcnn_jax.pixels import PixelFormat

    if not arguments:
        raise ValueError(
            "no images given: name image files or folders, as in: mrcnn-jax predict ... photo.jpg folder/"
        )
    config = _override(model_config(_WORKDIR.value))
    errors: list[ValueError] = []
    listed = _read_list(arguments)
    if listed is not None:
        images = listed.images
    else:
        wanted = suffixes() if PixelFormat.of(config).is_rgb else (*suffixes(), NPY_SUFFIX)
        images, errors = find_images(arguments, wanted)
        if not images:
            return _report(errors)
        if line := passed_over(arguments, wanted):
            print(line, flush=True)
    output = Path(_OUTPUT.value)
    detections_file = output / DETECTIONS
    dataset_file = Path(_DATASET.value) if _DATASET.value else None
    _check_outputs(detections_file, dataset_file, inputs=images)
    ids = list(range(1, len(images) + 1)) if listed is None else listed.ids
    if _ANNOTATIONS.value is not None:
        ids = read_image_ids(Path(_ANNOTATIONS.value), images)

    setup()
    from mrcnn_jax.data.findings import printable
    from mrcnn_jax.images import describe_nearly_black
    from mrcnn_jax.inference.coco_files import write_dataset, write_detections
    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.inference.geojson import is_ours
    from mrcnn_jax.inference.partial_results import PartialResults
    from mrcnn_jax.inference.pictures import write_results
    from mrcnn_jax.inference.predict import check_finds_objects
    from mrcnn_jax.inference.tiles import TiledDetector
    from mrcnn_jax.inference.views import describe_views
    from mrcnn_jax.weights.zoo import workdir_of

    check_finds_objects(config.model)
    workdir = workdir_of(_WORKDIR.value)
    detector = load(workdir, step=_STEP.value, batch_size=_BATCH_SIZE.value, config=config)
    finder: Detector | TiledDetector = detector
    if _TILE.value is not None:
        finder = TiledDetector(detector, tile=_TILE.value, overlap=_OVERLAP.value)
    if listed is not None:
        listed.check_categories(detector.categories)
    pictures = picture_paths(images, output) if _PICTURES.value == "png" else None
    geojson = output_paths(images, output, ".geojson", is_ours) if _GEOJSON.value else None
    with PartialResults(output / _PARTIAL, _made_with(workdir, detector), images, pictures) as partial:
        if before := sum(map(partial.is_done, images)):
            print(f"{before} of {len(images)} images are done already ({partial.path})", flush=True)
        lines = describe_views(config), describe_earlier_pictures(output, pictures or [])
        print(*(f"{line}\n" for line in lines if line), sep="", end="", flush=True)
        try:
            problems = write_results(
                finder,
                images,
                pictures,
                partial,
                score_threshold=_SCORE_THRESHOLD.value,
                annotations=dataset_file is not None,
                geojson=geojson,
            )
        except BaseException:
            if done := sum(map(partial.is_done, images)):
                print(
                    f"the results of {done} of {len(images)} images are in {partial.path}; "
                    "run the same command to continue",
                    file=sys.stderr,
                )
            raise
        errors += problems.unreadable
        if problems.nearly_black:
            names = [printable(str(path)) for path in problems.nearly_black]
            print(f"warning: {describe_nearly_black(names)}", file=sys.stderr)
        if done := sum(map(partial.is_done, images)):
            counts = _Counts()
            found = counts.count(partial.read(images))
            write_detections(detections_file, found, ids, only_cocos=listed is not None)
            if dataset_file is not None:
                write_dataset(dataset_file, partial.read(images), ids, images, detector.categories)
            partial.remove()
            line = f"{done} images, {counts.objects} objects in {detections_file}"
            places = [f"drawn in {output}/*.png"] if pictures is not None else []
            places += [f"annotated in {dataset_file}"] if dataset_file is not None else []
            places += [f"in {output}/*.geojson"] if geojson is not None else []
            if places:
                threshold = f"score at least {_SCORE_THRESHOLD.value:g}"
                line += f", {counts.drawn} of them ({threshold}) {' and '.join(places)}"
            print(line)
            if pictures is not None and counts.too_large:
                print(f"images with too many pixels to be drawn: {counts.too_large}")
    return _report(errors)


def _predict_video(video: Path, output: Path, arguments: list[str]) -> int:
    if refused := [f"--{name}" for name in _OF_IMAGES if flags.FLAGS[name].present] + arguments:
        raise ValueError(
            f"--video={video}: {', '.join(refused)} cannot be given with a video, only with images"
        )
    if find_spec("av") is None:
        raise ValueError(
            "--video needs PyAV: pip install 'mrcnn_jax[video]', or in a clone pip install -e '.[video]'"
        )
    config = _override(model_config(_WORKDIR.value))
    setup()
    from mrcnn_jax.inference.detector import load
    from mrcnn_jax.inference.predict import check_finds_objects
    from mrcnn_jax.inference.video_output import VideoOutputs, write_video
    from mrcnn_jax.weights.zoo import workdir_of

    check_finds_objects(config.model)
    outputs = VideoOutputs.of(output)
    detector = load(workdir_of(_WORKDIR.value), step=_STEP.value, batch_size=_BATCH_SIZE.value, config=config)
    threshold = _SCORE_THRESHOLD.value
    try:
        done = write_video(detector, video, outputs, score_threshold=threshold, tracks=_TRACKS.value)
    except FileExistsError:  # what is there is another run's
        raise
    except BaseException:
        if kept := outputs.unfinished.existing():
            print(f"the frames so far are in {' and '.join(map(str, kept))}", file=sys.stderr)
        raise
    line = f"{done.frames} frames, {done.objects} objects in {outputs.lines}"
    if outputs.video is not None:
        line += f", {done.drawn} of them (score at least {threshold:g}) drawn in {outputs.video}"
    print(line)
    for problem in done.left_out:
        print(f"warning: {video}: {problem}", file=sys.stderr)
    errors = [ValueError(f"{video}: {problem}") for problem in done.problems]
    if more := done.lost + done.damaged - len(errors):
        errors.append(ValueError(f"{video}: {more} more such places"))
    return _report(errors)


def _read_list(arguments: list[str]) -> "ImageList | None":
    """The images of --coco; None without it. Raises ValueError for flags and arguments that contradict it."""
    if _COCO.value is None:
        return None
    from mrcnn_jax.data.image_list import read_image_list

    if _ANNOTATIONS.value is not None:
        raise ValueError("--annotations: image ids are taken from --coco; give only one of the two")
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise ValueError(f"--coco={_COCO.value}: name the one folder that has its images, not {arguments}")
    return read_image_list(Path(_COCO.value), Path(arguments[0]))


class _Counts:
    """What is in the results that it passes on: objects, those that are drawn, and images that are not."""

    objects = 0
    drawn = 0
    too_large = 0

    def count(self, results: Iterable[tuple[int, "ImageResults"]]) -> Iterator[tuple[int, "ImageResults"]]:
        from mrcnn_jax.inference.pictures import can_be_drawn

        for index, found in results:
            self.objects += len(found["objects"])
            self.drawn += found["drawn"]
            self.too_large += not can_be_drawn(found["size"])
            yield index, found


def _check_outputs(detections: Path, dataset: Path | None, *, inputs: list[Path]) -> None:
    """Checks, before predicting, that the files can be written and are not among ``inputs``."""
    if dataset is not None:
        if dataset.parent.resolve() != detections.parent.resolve():  # which will be created
            command_line.check_output("save_dataset", dataset)
        if dataset.resolve() == detections.resolve():
            raise ValueError(
                f"--save_dataset={dataset}: {detections} is the results list; choose another file"
            )
    files = (*inputs, _ANNOTATIONS.value, _COCO.value)
    taken = {Path(path).resolve() for path in files if path is not None}
    for flag, path in (("output", detections), ("save_dataset", dataset)):
        if path is not None and path.resolve() in taken:
            raise ValueError(f"{path} is an input and would be overwritten; choose another --{flag}")


def _made_with(workdir: Path, detector: "Detector") -> dict[str, Any]:
    """What the results depend on besides the images."""
    from mrcnn_jax.inference.made_with import made_with

    assert detector.step is not None  # it was loaded from a checkpoint
    return made_with(workdir, detector.step, detector.config) | {
        "--score_threshold": _SCORE_THRESHOLD.value,
        "--pictures": _PICTURES.value,
        "--save_dataset": _DATASET.value is not None,
        "--geojson": _GEOJSON.value,
        "--tile": _TILE.value,
        "--overlap": _OVERLAP.value if _TILE.value else None,
    }


def _report(errors: list[ValueError]) -> int:
    """Prints the errors; returns the exit code."""
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0
