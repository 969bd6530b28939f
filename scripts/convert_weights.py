#!/usr/bin/env python3
"""Makes a run of weights that torchvision, Detectron2 or another run has trained, or hands a run's back.

    scripts/convert_weights.py --source=torchvision --config=configs/torchvision/mask_rcnn_r50_fpn.py \\
        --input=maskrcnn_resnet50_fpn_coco.pth --workdir=runs/converted
    scripts/convert_weights.py --source=run --config=configs/balloon.py --input=runs/converted \\
        --new_categories=annotations.json --workdir=runs/balloon
    scripts/convert_weights.py --target=torchvision --workdir=runs/balloon --output=balloon.safetensors

The first two make a directory that predict.py, evaluate.py and train.py take. Files of weights end in
.safetensors, .npz, .pth or .pkl, and cannot run code. If anything does not fit, all of it is listed and
nothing is written; what is there already is never replaced.
"""

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup_jax

_config = command_line.define_config()
_SOURCE = flags.DEFINE_enum(
    "source", None, ["torchvision", "detectron2", "run"], "what trained the weights in --input"
)
_TARGET = flags.DEFINE_enum("target", None, ["torchvision"], "what the weights in --workdir are written for")
_INPUT = flags.DEFINE_string("input", None, "file of weights, or the directory of another run")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the run: a new one with --source", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "file to write: .safetensors or .npz")
_STEP = command_line.define_step()
_CATEGORIES = flags.DEFINE_string(
    "categories", None, "COCO-format JSON whose 'categories' the file was trained on; COCO's if not given"
)
_NEW_CATEGORIES = flags.DEFINE_string(
    "new_categories",
    None,
    "COCO-format JSON with other 'categories', to train on: the heads' last layers are drawn anew for them",
)


def main(_: list[str]) -> None:
    if _SOURCE.value and not _TARGET.value:
        _refuse("output", beside="--source")
        _import(_SOURCE.value, _needed(_INPUT))
    elif _TARGET.value and not _SOURCE.value:
        _refuse("input", "config", "categories", "new_categories", beside="--target")
        _export(_needed(_OUTPUT))
    else:
        raise ValueError("give --source to make a run of weights, or --target to hand a run's weights on")


def _import(source: str, path: str) -> None:
    config = _config()
    setup_jax()
    from mrcnn_jax.weights.convert import import_weights

    made = import_weights(
        source,
        path,
        config,
        _WORKDIR.value,
        step=_STEP.value,
        categories=_CATEGORIES.value,
        new_categories=_NEW_CATEGORIES.value,
    )
    print(
        f"{_WORKDIR.value}: a run of {made.size / 1e6:.1f} M weights from {path}, "
        f"{len(made.categories)} label(s): {', '.join(made.categories.names[:8])}"
        + (", ..." if len(made.categories) > 8 else "")
    )
    if made.new_layers:
        print(f"drawn anew for these, to be trained: {', '.join(made.new_layers)}")


def _export(output: str) -> None:
    setup_jax()
    from mrcnn_jax.weights.export import export_torchvision

    print(export_torchvision(_WORKDIR.value, output, step=_STEP.value))


def _needed(flag: flags.FlagHolder[str | None]) -> str:
    if not flag.value:
        raise ValueError(f"--{flag.name} is missing; see --help")
    return flag.value


def _refuse(*names: str, beside: str) -> None:
    given = [f"--{name}" for name in names if flags.FLAGS[name].value is not None]
    if given:
        raise ValueError(f"{beside} has no use for {', '.join(given)}; see --help")


if __name__ == "__main__":
    command_line.run(main)
