"""Where the data sets are that Detectron2 knows by name."""

from pathlib import PurePosixPath

from mrcnn_jax.config import DataConfig
from mrcnn_jax.config.detectron2.unsupported import Settings

# Images and annotations below data.root.
_COCO = {
    f"{kind}coco_{year}_{split}": (f"{split}{year}", f"annotations/{file}_{split}{year}.json")
    for kind, file in (("", "instances"), ("keypoints_", "person_keypoints"))
    for year in (2014, 2017)
    for split in ("train", "val")
}
_CITYSCAPES = {  # the files that mrcnn-jax to_coco writes in configs/cityscapes.py
    f"cityscapes_fine_instance_seg_{split}": (f"leftImg8bit/{split}", f"{split}.json")
    for split in ("train", "val")
}
_LVIS = {  # beside COCO's annotations; the images are those of COCO, of both of its folders
    f"lvis_{version}_{split}": (".", f"annotations/lvis_{version}_{split}.json")
    for version in ("v0.5", "v1")
    for split in ("train", "val")
}
_PLACES = _COCO | _CITYSCAPES | _LVIS


def set_datasets(data: DataConfig, settings: Settings) -> None:
    """Sets the files of the data sets and of their proposals.

    Another name is that of a folder of images with annotations of the same name: ``mine`` and ``mine.json``.
    Proposals are looked for below the root under the file's own name, but as ``.npz`` (``mrcnn-jax propose``
    makes these of Detectron2's).
    """
    if train := settings["DATASETS.TRAIN"]:
        (data.train_images, data.train_annotations), *more = map(_place, train)
        data.more_train_images = tuple(images for images, _ in more)
        data.more_train_annotations = tuple(annotations for _, annotations in more)
    if val := settings["DATASETS.TEST"]:
        data.val_images, data.val_annotations = _place(val[0])
    if settings["MODEL.LOAD_PROPOSALS"]:
        data.train_proposals = _proposals(settings["DATASETS.PROPOSAL_FILES_TRAIN"])
        data.val_proposals = _proposals(settings["DATASETS.PROPOSAL_FILES_TEST"])


def _place(name: str) -> tuple[str, str]:
    return _PLACES.get(name, (name, f"{name}.json"))


def _proposals(files: tuple[str, ...]) -> str:
    return PurePosixPath(files[0]).with_suffix(".npz").name if files else ""
