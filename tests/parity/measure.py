"""Measures how closely this project matches another system, stage by stage, on real images.

    python tests/parity/measure.py --peer=PEER/bin/python --model=maskrcnn_resnet50_fpn \
        --config=configs/torchvision/mask_rcnn_r50_fpn.py --images=COCO/val2017 \
        --annotations=COCO/annotations/instances_val2017.json --output=DIR --train

PEER is an environment with torch, torchvision and pycocotools. For Detectron2 add ``--source=DETECTRON2``, a
checkout, and name the model as its zoo does: ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x``. For
MMDetection PEER also has what ``mmdetection_peer.py`` needs; a model is a file of its ``configs/``, such as
``mask_rcnn/mask-rcnn_r50_fpn_1x_coco``, and training is not compared. The config is a Python file, a YAML
file of Detectron2 or the name of a published model; ``--categories`` is their number, if they are not COCO's.
Both sides get the same seeded weights, which give many detections. It prints the largest difference in each
quantity beside its bound, and exits with code 1 if any exceeds it. ``--reuse`` compares with what the peer
wrote to DIR before.
"""

import argparse
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script

from mrcnn_jax.config import Config
from mrcnn_jax.config.detectron2 import read_config
from mrcnn_jax.config.io import validate
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.images import read_image
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.models.variables import Arrays, Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights import detectron2, mmdetection, torchvision
from mrcnn_jax.weights.files import read_arrays
from mrcnn_jax.weights.layouts import write_model
from mrcnn_jax.weights.zoo_models import MODELS, config_of
from tests.parity import compare, ours

HERE = Path(__file__).parent


@dataclass
class Report:
    """Prints differences as they are found, and collects the ones that are too large."""

    failed: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, bound: float | None = None, note: str = "") -> None:
        """Prints a quantity; it fails if it is NaN or exceeds ``bound``, if there is one."""
        verdict = ""
        if bound is not None:
            verdict = "ok" if value <= bound else "TOO LARGE"
            if verdict != "ok":
                self.failed.append(name)
        limit = "" if bound is None else f"{bound:g}"
        print(f"{name:<44} {value:>11.3g} {limit:>8}  {verdict}  {note}".rstrip(), flush=True)


@dataclass(frozen=True)
class System:
    """How a peer names and orders things."""

    script: str
    categories: Categories  # of its COCO models
    weights: str  # its weights file
    read: Callable[..., Mapping[str, np.ndarray]]  # converts them to ours
    layouts: Callable[[Blueprint], Mapping]
    heads: Callable[
        [np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
    ]  # converts its class logits and deltas to ours
    losses: Mapping[str, str]  # its names for our losses
    own_masks: str  # its own mask targets


TORCHVISION = System(
    script="torchvision_peer.py",
    categories=COCO_BY_ID,
    weights="weights.npz",
    read=torchvision.from_torchvision,
    layouts=torchvision.layouts,
    heads=lambda logits, deltas: (logits, deltas[:, 1:]),
    losses={
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "box_class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
        "keypoint": "loss_keypoint",
    },
    own_masks="bitmaps",
)
DETECTRON2 = System(
    script="detectron2_peer.py",
    categories=COCO,
    weights="weights.pkl",
    read=detectron2.from_detectron2,
    layouts=detectron2.layouts,
    heads=lambda logits, deltas: (np.roll(logits, 1, axis=1), deltas),
    losses={
        "rpn_objectness": "loss_rpn_cls",
        "rpn_box": "loss_rpn_loc",
        "box_class": "loss_cls",
        "box": "loss_box_reg",
        **{f"box_class_{number + 1}": f"loss_cls_stage{number}" for number in (1, 2)},
        **{f"box_{number + 1}": f"loss_box_reg_stage{number}" for number in (1, 2)},
        "mask": "loss_mask",
        "keypoint": "loss_keypoint",
    },
    own_masks="polygons",
)
MMDETECTION = System(
    script="mmdetection_peer.py",
    categories=COCO,
    weights="weights.pth",
    read=mmdetection.from_mmdetection,
    layouts=mmdetection.layouts,
    heads=DETECTRON2.heads,
    losses={},
    own_masks="",
)


def main() -> int:
    arguments = _parse()
    setup()
    of_mmdetection = "-rcnn_" in arguments.model  # as in all of its names
    system = DETECTRON2 if arguments.source else MMDETECTION if of_mmdetection else TORCHVISION
    config = _config(arguments)
    output = arguments.output
    categories = COCO_PERSON if config.model.keypoint else system.categories
    if count := arguments.categories:
        categories = Categories(tuple(range(1, count + 1)), tuple(map(str, range(1, count + 1))))
    dataset = None
    if arguments.train:
        output.mkdir(parents=True, exist_ok=True)
        dataset = ours.read_data(arguments.images, arguments.annotations, categories)
        if config.model.mask:
            ours.write_box_frames(dataset, output / "box_frames.npz", config.data.mask_grid)
    if not arguments.reuse:
        _run_peer(arguments, system, masks=config.model.mask)

    arrays = read_arrays(output / system.weights)
    blueprint = make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )
    weights = ours.to_device(system.read(arrays, blueprint, source=str(output / system.weights)))
    report = Report()
    print(f"{arguments.model}, {arguments.short_side} x {arguments.long_side}")
    with np.load(output / "inference.npz") as archive:
        _compare_inference(
            report, system, blueprint, weights, config, categories, arguments.images, dict(archive)
        )
    if dataset is not None:
        _training_settings(config, output / "training.npz")
        with np.load(output / "training.npz") as archive:
            _compare_training(report, system, blueprint, weights, config, dataset, dict(archive))
    print(f"{len(report.failed)} too large" + "".join(f"\n  {name}" for name in report.failed))
    return 1 if report.failed else 0


def _compare_inference(
    report: Report,
    system: System,
    blueprint: Blueprint,
    weights: Arrays,
    config: Config,
    categories: Categories,
    images: Path,
    theirs: Mapping[str, np.ndarray],
) -> None:
    count = 1 + max(int(name.split("/")[0]) for name in theirs)
    stages = ours.make_stages(blueprint, config)
    for number in range(count):
        reference = _under(theirs, f"{number}/")
        if "box_logits" in reference:
            reference["box_logits"], reference["box_deltas"] = system.heads(
                reference["box_logits"], reference["box_deltas"]
            )
            file = images / str(reference["file_name"])
            found = stages(weights, read_image(file), reference)
            for name, value, bound in compare.stages(found, reference):
                report.add(f"image {number}, {name}", value, bound)

    predict_fn = make_predict_fn(blueprint, config, make_mesh())(weights)
    detector = Detector(predict_fn, config, categories)
    total = compare.Detections()
    for number in range(count):
        reference = _under(theirs, f"{number}/")
        found = detector(images / str(reference["file_name"]))
        total.add(found, reference, paste=config.test.mask_paste)
    for name, value, bound, note in total.rows():
        report.add(f"{count} images, {name}", value, bound, note)


def _compare_training(
    report: Report,
    system: System,
    blueprint: Blueprint,
    weights: Arrays,
    config: Config,
    dataset: ours.CocoDataset,
    theirs: Mapping[str, np.ndarray],
) -> None:
    batches = [ours.training_batch(dataset, names, config) for names in theirs["batches"]]
    losses, gradients, targets = ours.losses_and_gradients(blueprint, weights, config, batches[0])
    for name, value, bound in compare.targets(targets, theirs):
        report.add(name, value, bound)
    for name, loss in losses.items():
        wanted = float(theirs[f"losses/{system.losses[name]}"])
        report.add(f"loss {name}", abs(float(loss) - wanted) / abs(wanted), 1e-4, f"{wanted:.5f}")

    layouts = {name: layout for name, layout in system.layouts(blueprint).items() if name in gradients}
    in_their_names = write_model(gradients, layouts)
    wanted_gradients = _under(theirs, "gradients/")
    worst = compare.gradients(in_their_names, wanted_gradients)
    report.add(f"gradients of {len(wanted_gradients)} parameters, the worst", worst[0][1], 1e-3, worst[0][0])
    report.add("gradients, the median", float(np.median([value for _, value in worst])))
    report.add(
        "parameters with a gradient on one side only", len(set(in_their_names) ^ set(wanted_gradients)), 0
    )

    if config.model.mask:
        for name, value, bound in compare.mask_targets(theirs, own=system.own_masks):
            report.add(name, value, bound)
    history = _under(theirs, "steps/")
    if history:
        count = len(next(iter(history.values())))
        proposals = [ours.given_proposals(theirs, step) for step in range(count)]
        found = ours.steps(blueprint, weights, config, batches, proposals)
        for name in losses:
            wanted = history[system.losses[name]]
            difference = np.abs(found[name] - wanted) / np.maximum(np.abs(wanted), 1e-12)
            by_step = " ".join(f"{value:.0e}" for value in difference)
            report.add(f"{count} steps, {name}", float(difference.max()), 1e-3, by_step)


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _config(arguments: argparse.Namespace) -> Config:
    """The config, with the image sizes of the arguments and without randomness."""
    if arguments.config in MODELS:
        config = config_of(MODELS[arguments.config])
    elif arguments.config.endswith(".yaml"):
        config = read_config(Path(arguments.config))
    else:
        config = runpy.run_path(arguments.config)["get_config"]()
    short, long = arguments.short_side, arguments.long_side
    data = config.data
    data.train_short_sides, data.test_short_side, data.long_side = (short,), short, long
    sides = tuple(-(-side // 32) * 32 for side in (short, long))
    data.canvases = (sides, sides[::-1])
    validate(config)
    return config


def _training_settings(config: Config, path: Path) -> None:
    """Applies the peer's training settings: sampling takes every candidate; plain SGD."""
    with np.load(path) as archive:
        settings = {name.removeprefix("settings/"): archive[name] for name in archive if "settings/" in name}
    train = config.train
    train.rpn_samples = int(settings["rpn_batch_size_per_image"])
    train.rpn_post_nms = int(settings["post_nms_topk"])
    train.roi_samples = int(settings["roi_batch_size_per_image"])
    train.learning_rate = float(settings["learning_rate"])
    train.momentum = float(settings["momentum"])
    train.weight_decay = float(settings["weight_decay"])
    train.schedule, train.decay_steps, train.warmup_steps = "step", (), 0


def _run_peer(arguments: argparse.Namespace, system: System, *, masks: bool) -> None:
    command = [str(arguments.peer), str(HERE / system.script), f"--model={arguments.model}"]
    command += [f"--output={arguments.output}", f"--images={arguments.images}", f"--count={arguments.count}"]
    command += [f"--short_side={arguments.short_side}", f"--long_side={arguments.long_side}"]
    if arguments.source:
        command.append(f"--source={arguments.source}")
    command += [f"--gain={gain}" for gain in arguments.gain]
    if arguments.train:
        keypoints = "keypoints" if "keypoint" in arguments.model else "annotations"
        command += ["--train", f"--{keypoints}={arguments.annotations}", f"--steps={arguments.steps}"]
        command.append(f"--learning_rate={arguments.learning_rate}")
        if masks:
            command += ["--mask_targets=box_frames", f"--box_frames={arguments.output / 'box_frames.npz'}"]
    subprocess.run(command, check=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="Python of the environment with torch")
    parser.add_argument("--source", type=Path, help="a checkout of Detectron2")
    parser.add_argument("--model", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--categories", type=int, help="default: COCO's")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8, help="images")
    parser.add_argument(
        "--gain",
        action="append",
        default=[],
        help="PATTERN=FACTOR, which multiplies seeded weights; not for torchvision",
    )
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    # Steps amplify rounding: after ten, Detectron2 with one thread and with two differ by 3e-6 of a loss at
    # this rate, and by 2e-4 at ten times the rate.
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    parser.add_argument("--short_side", type=int, default=800)
    parser.add_argument("--long_side", type=int, default=1333)
    parser.add_argument("--reuse", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
