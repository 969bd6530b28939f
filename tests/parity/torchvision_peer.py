"""Writes what torchvision's detectors compute, stage by stage, for ``measure.py`` to compare with.

    python tests/parity/torchvision_peer.py --model=maskrcnn_resnet50_fpn --output=DIR \\
        --images=DIR_OF_IMAGES --count=8 [--train --annotations=instances.json --steps=10 \\
        [--mask_targets=box_frames --box_frames=FILE.npz]]
    python tests/parity/torchvision_peer.py --tiny --output=tests/fixtures/torchvision_models.npz

runs in an environment with torchvision 0.28, and pycocotools for training with masks. Runs are bit-equal
on the same machine with the same number of threads: they print a digest of what they write.

Unless noted, arrays are float32, images and features are channels-last without a batch axis, and boxes are
``x1 y1 x2 y2`` in pixels of the resized image. Levels are "p2" to "p6". Labels are COCO's
category ids (1 for persons in models with keypoints); 0 is the background.

``DIR/weights.npz`` is the model's state dict, in torch's layout (``seeded.py`` makes the same values).

``DIR/inference.npz``, for each image i = 0, 1, ...:

- ``i/file_name``; ``i/image_size`` height and width after resizing, int
- ``i/pixels [H W 3]``: what the model sees, normalised and padded
- the detections, in pixels of the image file: ``i/boxes [D 4]``, ``i/scores [D]``, ``i/labels [D]`` int,
  ``i/masks`` (packed bits of the pasted masks > .5) and their shape ``i/mask_shape`` (D, height, width),
  ``i/keypoints [D K 3]`` x, y and 1, ``i/keypoint_scores [D K]`` logits

and for images 0 and 1 (of different shapes if the folder has such images) the stages before them:

- ``i/backbone/c2`` to ``c5`` and ``i/features/<level>``
- ``i/objectness/<level> [A]`` logits, ``i/deltas/<level> [A 4]``, ``i/anchors/<level> [A 4]``, ordered by
  row, column, ratio
- ``i/proposals/boxes [R 4]``, ``i/proposals/scores [R]`` probabilities
- ``i/box_logits [R categories+1]``, the background first; ``i/box_deltas [R categories+1 4]``
- ``i/detected_boxes [D 4]``, ``i/detected_labels [D]`` int
- ``i/mask_logits [D M M]`` of the detected category; ``i/keypoint_logits [D M M K]``

``DIR/training.npz``. Sampling takes every candidate, so that nothing is random; proposals are few, so that it
is cheap. Images are resized to ``--short_side`` and ``--long_side`` and not flipped. Crowds are excluded, and
objects are ordered from large to small.

- ``settings/<name>``: settings that the losses and steps depend on
- ``batches [batches 2]`` the images' file names, ``batch_ids [batches 2]`` their ids, int

and for batch 0, whose images are j = 0 and 1:

- ``pixels [2 H W 3]``, ``image_sizes [2 2]`` int; ``ground_truth/j/boxes [G 4]``, ``.../labels [G]`` int,
  ``.../ids [G]`` int, the annotation ids, ``.../masks`` (packed bits) and ``.../mask_shape``,
  ``.../keypoints [G K 3]``
- ``anchor_labels [2 A]`` int, all levels in turn: 1 positive, 0 negative, -1 neither;
  ``anchor_boxes [2 A 4]`` the matched objects' boxes
- ``proposals/j/boxes``, ``proposals/j/scores``: from the RPN, before the ground truth is appended
- ``roi_boxes/j [R 4]``, ``roi_labels/j [R]`` int, ``roi_objects/j [R]`` int row of the matched object and
  ``roi_gt_boxes/j [R 4]`` its box (undefined for the background), ``regression_targets/j [R 4]``
- ``mask_logits [P M M]`` of the true category for the positive regions of both images in turn,
  ``mask_targets/bitmaps [P M M]`` and ``mask_losses/bitmaps``, and with ``--box_frames`` the same for
  ``box_frames``
- ``losses/<name>`` under torchvision's names; ``gradients/<parameter>`` of their sum, in torch's layout

and for SGD, with step s on batch s modulo the number of batches, ``steps/<loss> [steps]`` and the RPN's
proposals in each step, ``step_proposals/s/j [R 4]``.

``--mask_targets=box_frames`` trains on masks in the frames of their boxes instead of bitmaps.
``--box_frames`` names a file with a uint8 array ``[S S]`` for every annotation id, made by
``mrcnn_jax.data.rasterise``.

``--tiny`` writes a fixture: the keys of both files, prefixed with "mask/", "keypoint/" and "v2/", for the
narrow models on scenes of ``seeded.py``: inference on ``DETECTED``, training, from box-frame masks, on
``TRAINED``. Arrays are reduced by ``thin``. ``<model>/weights`` lists the state dict, a name and its shape
per row. ``<model>/gradient_norms`` are the norms of the full gradients, in the same order.
"""

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeded import DETECTED, TRAINED, Scene, thin
from torchvision.models.detection import FasterRCNN
from torchvision_coco import choose_images, read_batches, read_image
from torchvision_inference import Arrays, detect, watch
from torchvision_models import MODELS, TINY_MODELS, build, build_tiny
from torchvision_training import EVERY_CANDIDATE, SGD, Example, train


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.tiny:
        save(args.output, tiny())
        return
    args.output.mkdir(parents=True, exist_ok=True)
    size = {"min_size": args.short_side, "max_size": args.long_side}
    model = build(args.model, **size, **(EVERY_CANDIDATE if args.train else {}))
    outputs = watch(model)
    save(args.output / "weights.npz", weights_of(model))

    arrays: Arrays = {}
    for i, path in enumerate(choose_images(args.images, args.count)):
        start = time.perf_counter()
        found = detect(model, outputs, read_image(path), stages=i < 2)
        seconds = time.perf_counter() - start
        print(f"{path.name}: {describe(found)}, {seconds:.1f} s")
        arrays |= {f"{i}/file_name": np.array(path.name)} | prefixed(found, str(i))
    save(args.output / "inference.npz", arrays)

    if args.train:
        sgd = SGD | {"lr": args.learning_rate}
        batches, arrays = read_batches(args, keypoints=model.roi_heads.has_keypoint())
        start = time.perf_counter()
        arrays |= train(model, outputs, batches, mask_targets=args.mask_targets, steps=args.steps, sgd=sgd)
        arrays |= settings(size | EVERY_CANDIDATE | sgd | {"mask_targets": args.mask_targets})
        print(f"training: {time.perf_counter() - start:.0f} s")
        for name in arrays:
            if name.startswith(("losses/", "mask_losses/", "steps/")):
                print(f"{name}: {np.round(arrays[name], 4)}")
        save(args.output / "training.npz", arrays)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--tiny", action="store_true", help="write the fixture; no other options")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--keypoints", type=Path, help="annotations for models with keypoints")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    parser.add_argument("--mask_targets", choices=("bitmaps", "box_frames"), default="bitmaps")
    parser.add_argument("--box_frames", type=Path)
    parser.add_argument("--short_side", type=int, default=800)
    parser.add_argument("--long_side", type=int, default=1333)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.tiny and not (args.model and args.images):
        parser.error("--model and --images are needed, or --tiny")
    if args.mask_targets == "box_frames" and not args.box_frames:
        parser.error("--mask_targets=box_frames needs --box_frames")
    return args


def tiny() -> Arrays:
    """The fixture's arrays: the narrow models' results."""
    sgd = SGD | {"lr": 0.001}
    chosen = EVERY_CANDIDATE | {
        "min_size": 96,
        "max_size": 160,
        "rpn_batch_size_per_image": 8000,
        "rpn_fg_iou_thresh": 0.5,  # so that some are positive
        "rpn_pre_nms_top_n_train": 300,
        "rpn_post_nms_top_n_train": 200,
        "rpn_pre_nms_top_n_test": 300,
        "rpn_post_nms_top_n_test": 200,
        "box_fg_iou_thresh": 0.35,
        "box_bg_iou_thresh": 0.35,
        "box_score_thresh": 0.01,
        "box_detections_per_img": 20,
    }
    arrays: Arrays = {}
    for kind in TINY_MODELS:
        model = build_tiny(kind, **chosen)
        outputs = watch(model)
        found: Arrays = {}
        for i, scene in enumerate(DETECTED):
            found |= prefixed(detect(model, outputs, scene.image, stages=True), str(i))
            print(f"{kind}: {describe(found, f'{i}/')}")
        batches = [[example(scene, kind) for scene in batch] for batch in TRAINED]
        found |= train(model, outputs, batches, mask_targets="box_frames", steps=3, sgd=sgd)
        print(kind, {name: np.round(value, 4) for name, value in found.items() if name.startswith("steps/")})
        shapes = [f"{name} {' '.join(map(str, value.shape))}" for name, value in weights_of(model).items()]
        found |= settings(chosen | sgd) | {"weights": np.array(shapes)}
        norms = [np.linalg.norm(value) for name, value in found.items() if name.startswith("gradients/")]
        found["gradient_norms"] = np.array(norms, np.float32)
        arrays |= prefixed({name: thin(value) for name, value in found.items()}, kind)
    return arrays


def example(scene: Scene, kind: str) -> Example:
    """A scene as an example for a narrow model: with keypoints of one category, or with masks of several."""
    if kind == "keypoint":
        return Example(scene.image, scene.boxes, np.ones_like(scene.labels), keypoints=scene.keypoints)
    return Example(scene.image, scene.boxes, scene.labels, scene.bitmaps(), scene.masks)


def weights_of(model: FasterRCNN) -> Arrays:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def settings(values: dict[str, Any]) -> Arrays:
    """Arguments of torchvision's constructors, under the names that both peers share where there is one."""
    names = {
        "min_size": "short_side",
        "max_size": "long_side",
        "rpn_post_nms_top_n_train": "post_nms_topk",
        "box_batch_size_per_image": "roi_batch_size_per_image",
        "lr": "learning_rate",
    }
    return {f"settings/{names.get(name, name)}": np.array(value) for name, value in values.items()}


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def describe(found: Arrays, prefix: str = "") -> str:
    """A summary of the detections in words."""
    scores, labels = found[f"{prefix}scores"], found[f"{prefix}labels"]
    return (
        f"{len(scores)} detections of {len(set(labels.tolist()))} categories, scores "
        f"{scores.min(initial=1):.3f} to {scores.max(initial=0):.3f}"
    )


def save(path: Path, arrays: Arrays) -> None:
    """Writes the arrays and prints a digest of them all, for comparing runs."""
    digest = hashlib.sha256()
    for name, value in arrays.items():
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    # Large files are full of random bits, which do not compress.
    large = sum(value.nbytes for value in arrays.values()) > 10_000_000
    (np.savez if large else np.savez_compressed)(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, digest {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
