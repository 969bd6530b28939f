"""Recognises the formats of labelling tools by the content of a file or folder."""

import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from mrcnn_jax.data.findings import printable
from mrcnn_jax.data.importers.files import IMAGE_FOLDERS, IMAGE_SUFFIXES, MASK_FOLDERS, find_folder
from mrcnn_jax.data.importers.via_csv import is_via_csv

_HEAD = 1 << 16  # bytes that are read of a file
_FILES = ("json", "csv")  # suffixes of files that may hold a whole dataset
_SAMPLES = 5  # files of a folder that are looked at
_EXPORT = "export them from there in the format COCO"


@dataclass(frozen=True)
class Kind:
    """What a file or folder holds."""

    name: str  # for messages, with an article
    format: str | None  # the --format of to_coco; None: it does not read this
    source: Path  # what to_coco has to be given
    advice: str = ""  # if it does not


def what_it_looks_like(path: str | Path) -> str | None:
    """A clause that says what ``path`` seems to be and what to do with it; None if it is not recognised.

    It reads the beginning of a file, or of the first few in a folder, and never raises for their content.
    COCO's own format is not recognised.
    """
    path = Path(path)
    kind = recognise(path)
    if kind is None:
        return None
    looks = f"looks like {kind.name}"
    if kind.format is None:
        return f"{looks}; {kind.advice}"
    extra = {"masks": " --category=NAME", "cityscapes": " --split=train"}.get(kind.format, "")
    folder = kind.source if kind.source.is_dir() else kind.source.parent
    source, output = (
        printable(shlex.quote(str(item))) for item in (kind.source, folder / "annotations.json")
    )
    command = f"mrcnn-jax to_coco {source} --format={kind.format} --output={output}{extra}"
    return f"{looks}; convert it with: {command}"


def recognise(path: Path) -> Kind | None:
    """What a file or folder holds; None if it is none of the known formats."""
    try:
        if path.is_dir():
            return _recognise_folder(path)
        return _recognise_file(path) if path.is_file() else None
    except OSError:
        return None


def files_of_format(folder: Path, name: str) -> list[Path]:
    """The JSON and CSV files in ``folder`` and one level below that are of the format ``name``, sorted."""
    files = itertools.chain(*(folder.glob(f"{below}*.{kind}") for below in ("", "*/") for kind in _FILES))
    return sorted(path for path in files if (kind := recognise(path)) is not None and kind.format == name)


def has_nothing_but_images(path: Path) -> bool:
    """Whether it is an image, or a folder with images and, to one level below, no file of another kind."""
    if not path.is_dir():
        return path.suffix.lower() in IMAGE_SUFFIXES
    files = [file for file in itertools.chain(path.glob("*"), path.glob("*/*")) if file.is_file()]
    return bool(files) and all(file.suffix.lower() in IMAGE_SUFFIXES for file in files)


def _recognise_file(path: Path) -> Kind | None:
    with path.open("rb") as file:
        data = file.read(_HEAD)
    text = data.decode(
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace"
    ).lstrip()
    if text.startswith(("{", "[")):
        return _recognise_json(path, text)
    if text.startswith("<"):
        return _recognise_xml(path, text)
    if path.suffix.lower() in (".yaml", ".yml"):
        if re.search(r"^names\s*:", text, re.MULTILINE) and re.search(
            r"^(train|val|nc|path)\s*:", text, re.MULTILINE
        ):
            return Kind("a YOLO dataset's data.yaml", "yolo", path)
        return None
    if path.suffix.lower() == ".csv" and is_via_csv(text):
        return Kind("a VIA (VGG Image Annotator) file", "via", path)
    if path.suffix.lower() == ".txt" and _is_yolo_labels(text, is_whole=len(data) < _HEAD):
        return Kind("a YOLO label file", "yolo", _yolo_root(path))
    return None


def _recognise_json(path: Path, text: str) -> Kind | None:
    def has(*keys: str) -> bool:
        return all(re.search(rf'"{key}"\s*:', text) for key in keys)

    if text.startswith("["):
        if (
            has("from_name", "to_name")
            or has("original_width", "annotations")
            or has("annotation_id", "image")
        ):
            return Kind("Label Studio's own JSON", None, path, _EXPORT)
        if has("coordinates", "label") and has("annotations"):
            return Kind("CreateML's JSON", None, path, "to_coco does not read it")
        if has("image_id", "category_id", "score"):
            return Kind(
                "COCO results (detections)", None, path, "annotations are another file: instances_*.json"
            )
        return None
    if has("shapes") and (has("shape_type") or has("imagePath") or has("points", "label")):
        return Kind("a labelme annotation", "labelme", path.parent)
    if (
        "_via_img_metadata" in text
        or has("filename", "regions")
        or has("vid_list")
        or has("region_attributes")
    ):
        return Kind("a VIA (VGG Image Annotator) file", "via", path)
    return None


def _recognise_xml(path: Path, text: str) -> Kind | None:
    text = re.sub(r"<\?.*?\?>|<!--.*?-->", "", text, flags=re.DOTALL).lstrip()
    if re.match(r"<annotations[\s>]", text):
        advice = f"it is CVAT's own XML: {_EXPORT} 1.0"
        return Kind("a CVAT annotation file", None, path, advice)
    if re.match(r"<annotation[\s>]", text):
        folder = path.parent
        return Kind(
            "a Pascal VOC annotation", "voc", folder.parent if folder.name == "Annotations" else folder
        )
    return None


def _is_yolo_labels(text: str, *, is_whole: bool) -> bool:
    """Whether all lines are a category number and shares of the image's sides."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    lines = lines if is_whole else lines[:-1]  # the last one may be cut off
    number = re.compile(r"[01]?(\.\d*)?([eE]-?\d+)?")
    return bool(lines) and all(
        len(words) >= 5 and words[0].isdecimal() and all(number.fullmatch(word) for word in words[1:])
        for words in lines
    )


def _yolo_root(labels: Path) -> Path:
    """The folder of a YOLO dataset that a label file belongs to."""
    for folder in labels.parents:
        if folder.name == "labels":
            outer = folder.parent
            is_split = not any(outer.glob("*.y*ml")) and any(outer.parent.glob("data.y*ml"))
            return outer.parent if is_split else outer
    return labels.parent


def _recognise_folder(folder: Path) -> Kind | None:
    if find_folder(folder, "gtFine") is not None:
        return Kind("a Cityscapes dataset", "cityscapes", folder)
    for pattern in ("*.yaml", "*.yml"):
        for path in sorted(folder.glob(pattern)):
            if (kind := _recognise_file(path)) is not None:
                return Kind("a YOLO dataset", kind.format, folder)
    has_labels = any(folder.glob("labels/*.txt")) or any(folder.glob("labels/*/*.txt"))
    if has_labels and ((folder / "images").is_dir() or (folder / "classes.txt").is_file()):
        return Kind("a YOLO dataset", "yolo", folder)
    if (folder / "obj.names").is_file() and (folder / "obj.data").is_file():  # Darknet's, from CVAT
        return Kind("a YOLO dataset", "yolo", folder)
    # The archives of Pascal VOC unpack to VOCdevkit/VOC2012.
    inner_folders = sorted(path.parent for path in folder.glob("VOC*/Annotations"))
    for candidate in (folder, *(inner_folders if len(inner_folders) == 1 else ())):
        if any((candidate / "Annotations").glob("*.xml")):
            return Kind("a Pascal VOC dataset", "voc", candidate)
    for suffix in ("json", "xml", "csv"):
        found = itertools.chain(folder.glob(f"*.{suffix}"), folder.glob(f"*/*.{suffix}"))
        for path in sorted(itertools.islice(found, _SAMPLES)):
            kind = _recognise_file(path)
            if kind is not None:
                one_per_image = kind.format in ("labelme", "voc")
                name = {
                    "labelme": "a folder of labelme annotations",
                    "voc": "a folder of Pascal VOC annotations",
                }
                return Kind(
                    name.get(kind.format or "", kind.name),
                    kind.format,
                    folder if one_per_image else path,
                    kind.advice,
                )
    has_masks = any(_holds_images(folder / name) for name in MASK_FOLDERS)
    if has_masks and any(_holds_images(folder / name) for name in IMAGE_FOLDERS):
        return Kind("images with a folder of masks", "masks", folder)
    inner = next((path for path in folder.iterdir() if path.is_dir()), None)
    if inner and _holds_images(inner / "images") and _holds_images(inner / "masks"):
        return Kind("images with a folder of masks each", "masks", folder)
    texts = sorted(itertools.islice(folder.glob("*.txt"), _SAMPLES))
    for path in texts:
        if path.name != "classes.txt" and (kind := _recognise_file(path)) is not None:
            return Kind("a YOLO dataset", "yolo", folder)
    return None


def _holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder, or one level below."""
    files = itertools.chain(folder.glob("*"), folder.glob("*/*"))
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in files)
