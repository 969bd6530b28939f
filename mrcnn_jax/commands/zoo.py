"""Lists the published models and backbones by name, or downloads the files of those that are named.

    mrcnn-jax zoo
    mrcnn-jax zoo torchvision/mask_rcnn_r50_fpn torchvision/resnet50

The list has the average precision of boxes, masks and keypoints that was reported on COCO's val2017 or, of
models with "lvis" in their names, on LVIS's validation set, in percent, and the size of the file, if it is
published or the file is here. A model's name stands for a run in --workdir of mrcnn-jax predict and evaluate,
and in --init of train; a backbone's for a file in --config.model.backbone_weights.

Downloads one file for each name, unless it is here already, and prints where it lies. Its checksum must begin
with the digits in its name.
"""

from collections.abc import Iterator

from mrcnn_jax.weights.download import cache_path, download
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, Model, Weights, unknown_name

ARGUMENTS = "names of models and backbones to download"


def main(names: list[str]) -> None:
    table: dict[str, Weights] = {**MODELS, **BACKBONES}
    if unknown := [name for name in names if name not in table]:
        raise ValueError("\n".join(unknown_name(name, table) for name in unknown))
    for name in names:
        print(download(table[name]), flush=True)
    if not names:
        print("\n".join(_lines()))


def _lines() -> Iterator[str]:
    yield f"{'model':<40} {'boxes':>6} {'masks':>6} {'keypoints':>10} {'MiB':>6}"
    for model in MODELS.values():
        yield _line(model)
    yield f"\n{'ImageNet backbone':<65} {'MiB':>6}"
    for backbone in BACKBONES.values():
        yield _line(backbone)


def _line(weights: Weights) -> str:
    ap = (*weights.ap, None, None)[:3] if isinstance(weights, Model) else (None,) * 3
    boxes, masks, keypoints = ("" if value is None else f"{value:.1f}" for value in ap)
    path = cache_path(weights)
    here = path.is_file()
    mib = path.stat().st_size / 2**20 if here else weights.mib
    size = "" if mib is None else f"{mib:.1f}"
    line = f"{weights.name:<40} {boxes:>6} {masks:>6} {keypoints:>10} {size:>6}  {'here' if here else ''}"
    return line.rstrip()
