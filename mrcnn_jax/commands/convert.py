"""Creates a run from weights of torchvision, Detectron2, MMDetection or a run, or exports a run's weights.

    mrcnn-jax convert --source=torchvision --config=torchvision/mask_rcnn_r50_fpn \\
        --input=maskrcnn_resnet50_fpn_coco.pth --workdir=runs/converted
    mrcnn-jax convert --source=detectron2 --config=detectron2/mask_rcnn_r50_fpn_3x \\
        --input=detectron2/mask_rcnn_r50_fpn_3x --new_categories=annotations.json --workdir=runs/mine
    mrcnn-jax convert --source=mmdetection --config=mmdetection/mask_rcnn_r50_fpn_1x \\
        --input=epoch_12.pth --categories=annotations.json --workdir=runs/mine
    mrcnn-jax convert --source=run --config=balloon --input=runs/converted \\
        --new_categories=annotations.json --workdir=runs/balloon
    mrcnn-jax convert --source=run --config=FILE --input=runs/rpn --join=runs/heads --workdir=runs/joined
    mrcnn-jax convert --target=torchvision --workdir=runs/balloon --output=balloon.safetensors
    mrcnn-jax convert --target=torchvision --workdir=torchvision/mask_rcnn_r50_fpn --output=r50.safetensors

The first five commands create a run for mrcnn-jax predict, evaluate and train. Weights files end in
.safetensors, .npz, .pth, .pt, .ckpt, .bin, .pth.tar or .pkl, and cannot run code. Training checkpoints may
hold more than the weights, under any key. Weights of published models are downloaded by name, once
(docs/zoo.md). If anything does not match, nothing is written. Existing files are never overwritten.
"""

from pathlib import Path

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.zoo_models import BACKBONES, find_model, run_config

_config = command_line.define_config()
_SOURCE = flags.DEFINE_enum(
    "source",
    None,
    ["torchvision", "detectron2", "mmdetection", "run"],
    "where the weights in --input come from",
)
_TARGET = flags.DEFINE_enum("target", None, ["torchvision"], "what to export the weights in --workdir for")
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "weights file, or directory of another run; or a published model's name, such as "
    "torchvision/mask_rcnn_r50_fpn (docs/zoo.md), whose weights are downloaded",
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory of the run: a new one with --source; with --target it may be a published model's name",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "file to write: .safetensors or .npz")
_JOIN = flags.DEFINE_string(
    "join",
    None,
    "directory of a second run, with the RPN or the heads that the run in --input lacks; backbone and FPN "
    "must be equal (docs/four_step_training.md)",
)
_STEP = command_line.define_step()
_KEY = flags.DEFINE_string(
    "key", None, "which weights of --input to take, if several fit, such as ema or state_dict.module"
)
_CATEGORIES = flags.DEFINE_string(
    "categories", None, "COCO-format JSON whose 'categories' --input was trained on; COCO's if not given"
)
_NEW_CATEGORIES = flags.DEFINE_string(
    "new_categories",
    None,
    "COCO-format JSON with other 'categories' to train on: the outputs of the heads' last layers are kept "
    "for those that --input has by the same name, and re-initialised for the others",
)


def main(_: list[str]) -> None:
    if _SOURCE.value and not _TARGET.value:
        _reject("output", mode="--source")
        _import(_SOURCE.value, _required(_INPUT))
    elif _TARGET.value and not _SOURCE.value:
        _reject("input", "key", "config", "categories", "new_categories", "join", mode="--target")
        _export(_required(_OUTPUT))
    else:
        raise ValueError("give --source to create a run from weights, or --target to export a run's weights")


def _import(source: str, path: str) -> None:
    _check_input(source, path)
    config = _config()
    setup()
    from mrcnn_jax.weights.convert import import_weights
    from mrcnn_jax.weights.zoo import file_of, workdir_of

    made = import_weights(
        source,
        workdir_of(path) if source == "run" else file_of(path),
        config,
        _WORKDIR.value,
        step=_STEP.value,
        key=_KEY.value,
        categories=_CATEGORIES.value,
        new_categories=_NEW_CATEGORIES.value,
        join=_JOIN.value,
    )
    place = f", {made.place!r}" if made.place else ""
    print(
        f"{_WORKDIR.value}: a run with {made.size / 1e6:.1f} M weights from {path}{place}; "
        f"categories ({len(made.categories)}): {', '.join(made.categories.names[:8])}"
        + (", ..." if len(made.categories) > 8 else "")
    )
    if made.left_out:
        print(f"left out: {', '.join(made.left_out)}")
    if made.new_layers:
        print(f"re-initialised, to be trained: {', '.join(made.new_layers)}")
    if kept := made.kept_and_new_names():
        print(kept)


def _export(output: str) -> None:
    config = run_config(_WORKDIR.value)
    setup()
    from mrcnn_jax.weights.export import export_torchvision
    from mrcnn_jax.weights.files import check_writable
    from mrcnn_jax.weights.torchvision import check_in_torchvision
    from mrcnn_jax.weights.zoo import workdir_of

    check_writable(Path(output))
    check_in_torchvision(config.model)  # before a download
    print(export_torchvision(workdir_of(_WORKDIR.value), output, step=_STEP.value))


def _check_input(source: str, path: str) -> None:
    """Raises ValueError or OSError if ``path`` is missing, or is a published model of another kind."""
    model = find_model(path)
    if model is None:
        if source == "run":
            run_config(path)
        elif path not in BACKBONES:
            Path(path).open("rb").close()
        return
    if source not in (model.system, "run"):
        raise ValueError(f"--source={source}: {path} is one of {model.system}'s models")
    if flags.FLAGS["config"].value is None:
        raise ValueError(f"--config is missing; for {path} it is {model.arguments}")


def _required(flag: flags.FlagHolder[str | None]) -> str:
    if not flag.value:
        raise ValueError(f"--{flag.name} is missing; see --help")
    return flag.value


def _reject(*names: str, mode: str) -> None:
    given = [f"--{name}" for name in names if flags.FLAGS[name].value is not None]
    if given:
        raise ValueError(f"{mode} does not take {', '.join(given)}; see --help")
