"""Writes what Detectron2 computes, stage by stage, for ``measure.py`` to compare with.

    python tests/parity/detectron2_peer.py --source=DETECTRON2 --output=DIR \\
        --model=COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x --images=DIR_OF_IMAGES --count=6 \\
        [--train --annotations=instances.json --steps=10 [--mask_targets=box_frames --box_frames=FILE.npz]]
    python tests/parity/detectron2_peer.py --source=DETECTRON2 --tiny \\
        --output=tests/fixtures/detectron2_models.npz

runs Detectron2's Python source, found at DETECTRON2, in an environment with torch, torchvision and that
source's dependencies (pycocotools, fvcore, iopath, omegaconf, hydra-core, yacs, tabulate, termcolor,
cloudpickle, black, matplotlib, opencv, and timm for ViTDet). Its compiled extension is not needed. Runs are
bit-equal on the same machine with the same number of threads.

Unless noted, arrays are float32, images and features are channels-last without a batch axis, and boxes are
``x1 y1 x2 y2`` in pixels of the resized image. A level is "p2" to "p6", or "c4" or "c5" in models
without a pyramid. Labels are 1 to the number of categories, in the order of their COCO ids; 0 is the
background.

``DIR/weights.pkl`` holds the model's weights, as a file of Detectron2's model zoo does.

``DIR/inference.npz``, for each image i = 0, 1, ...:

- ``i/file_name``; ``i/image_size`` height and width after resizing, int
- ``i/pixels [H W 3]``: what the model sees, normalised and padded, in its channel order, which is BGR
- the detections, in pixels of the image file: ``i/boxes [D 4]``, ``i/scores [D]``, ``i/labels [D]`` int,
  ``i/masks`` (packed bits of the pasted masks) and their shape ``i/mask_shape`` (D, height, width),
  ``i/keypoints [D K 3]`` x, y and score; x and y are positions, half a pixel more than COCO's indices

and for images 0 and 1 (of different shapes if the folder has such images) the stages before them:

- ``i/backbone/c2`` to ``c5`` (res2 to res5; without c5 where res5 belongs to the heads; none of a ViT) and
  ``i/features/<level>``
- ``i/objectness/<level> [A]`` logits, ``i/deltas/<level> [A 4]``, ``i/anchors/<level> [A 4]``, ordered by
  row, column, size, ratio
- ``i/proposals/boxes [R 4]``, ``i/proposals/scores [R]`` logits
- ``i/box_logits [R categories+1]``, the background last; ``i/box_deltas [R categories 4]``, or ``[R 1 4]``
  if class-agnostic; of a cascade, those of the first head
- ``i/detected_boxes [D 4]``, ``i/detected_labels [D]`` int: before boxes are scaled back to the image file's
  pixels, where empty ones are dropped
- ``i/mask_logits [D M M]`` of the detected category; ``i/keypoint_logits [D M M K]``

``DIR/training.npz``. Sampling takes every candidate, so that nothing is random; proposals are few, so that it
is cheap. Images are resized to ``--short_side`` and ``--long_side`` and not flipped. Crowds are excluded, and
objects are ordered from large to small.

- ``settings/<name>``: settings that the losses and steps depend on. Detectron2 divides the RPN's losses by
  ``rpn_batch_size_per_image`` times the number of images, however many anchors there are
- ``batches [batches 2]`` the images' file names, ``batch_ids [batches 2]`` their ids, int

and for batch 0, whose images are j = 0 and 1:

- ``pixels [2 H W 3]``, ``image_sizes [2 2]`` int; ``ground_truth/j/boxes [G 4]``, ``.../labels [G]`` int,
  ``.../ids [G]`` int, the annotation ids, ``.../keypoints [G K 3]`` shifted by half a pixel of the file
- ``anchor_labels [2 A]`` int, all levels in turn: 1 positive, 0 negative, -1 neither;
  ``anchor_boxes [2 A 4]`` the matched objects' boxes
- ``proposals/j/boxes``, ``proposals/j/scores``: from the RPN, before the ground truth is appended
- ``roi_boxes/j [R 4]``, ``roi_labels/j [R]`` int, ``roi_objects/j [R]`` int row of the matched object,
  ``roi_gt_boxes/j [R 4]`` its box and ``regression_targets/j [R 4]`` (all three undefined for
  the background): positives first, then the background, each in the order of proposals and objects
- ``mask_logits [P M M]`` of the true category for the positive regions of both images in turn,
  ``mask_targets/polygons [P M M]`` bool and ``mask_losses/polygons``, and with ``--box_frames`` the same for
  ``box_frames``
- ``losses/<name>`` under Detectron2's names (without ``_stage0``); ``gradients/<parameter>`` of their sum, in
  torch's layout

and for SGD, with step s on batch s modulo the number of batches, ``steps/<loss> [steps]`` and the RPN's
proposals in each step, ``step_proposals/s/j [R 4]``.

``--mask_targets=box_frames`` trains on masks in the frames of their boxes instead of polygons.
``--box_frames`` names a file with a uint8 array ``[S S]`` for every annotation id, made by
``mrcnn_jax.data.rasterise``.

``--tiny`` writes a fixture: the keys of both files, prefixed with "mask/", "keypoint/", "c4/", "c5/", "dc5/",
"agnostic/", "cascade/", "regnet/", "vit/", "deform/" and "giou/" (training alone), for the narrow models of
``detectron2_models.py`` on scenes of ``seeded.py``: inference on ``DETECTED``, training, from box-frame
masks, on ``TRAINED_ALIKE``. Arrays are reduced by ``thin``.
``<model>/weights`` lists the state dict, a name and its shape per row; ``detectron2_seeded.py`` makes the
values. ``<model>/gradient_norms`` are the norms of the full gradients, in the same order.
``vit/rates/<parameter> [2]`` are factors of the learning rate and of the weight decay in ViT-B's recipe.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2_inference import Arrays, predict
from detectron2_models import (
    TINY_MODELS,
    TRAINED_ONLY,
    build_full,
    build_tiny,
    vitdet_rates,
)
from detectron2_training import EVERY_CANDIDATE, SGD, scene_example, settings, train, training
from PIL import Image
from seeded import DETECTED, TRAINED_ALIKE, thin


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.tiny:
        np.savez_compressed(args.output, **tiny(args.source))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    size = {"INPUT.MIN_SIZE_TEST": args.short_side, "INPUT.MAX_SIZE_TEST": args.long_side}
    weights = args.output / "weights.pkl"
    options = size | EVERY_CANDIDATE
    predictor = build_full(args.source, args.model, weights, options, gains=args.gain)
    found = inference(predictor, choose_images(args.images, args.count))
    np.savez(args.output / "inference.npz", **found)
    if args.train:
        learnt = training(predictor, args)
        np.savez(args.output / "training.npz", **learnt)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--tiny", action="store_true", help="write the fixture; no other options")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--keypoints", type=Path, help="annotations for models with keypoints")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--gain", action="append", default=[], help="PATTERN=FACTOR (seeded.factor)")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    parser.add_argument("--mask_targets", choices=("polygons", "box_frames"), default="polygons")
    parser.add_argument("--box_frames", type=Path)
    parser.add_argument("--short_side", type=int, default=800)
    parser.add_argument("--long_side", type=int, default=1333)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.tiny and not (args.model and args.images):
        parser.error("--model and --images are needed, or --tiny")
    return args


def tiny(source: Path) -> Arrays:
    """The fixture's arrays: the narrow models' results."""
    sgd = SGD | {"lr": 0.001}
    chosen = {
        "INPUT.MIN_SIZE_TEST": 96,
        "INPUT.MAX_SIZE_TEST": 160,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 4000,
        "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.5],  # so that some are positive
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 300,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 300,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 200,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 256,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.35],
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
        "TEST.DETECTIONS_PER_IMAGE": 20,
    }
    arrays: Arrays = {}
    for kind in TINY_MODELS:
        predictor = build_tiny(source, kind, chosen)
        found = settings(predictor.cfg, mask_targets="box_frames", sgd=sgd)
        for i, scene in enumerate(() if kind in TRAINED_ONLY else DETECTED):
            detections, stages = predict(predictor, scene.image[..., ::-1])
            found |= prefixed(detections | stages, str(i))
            print(f"{kind}: {describe(detections)}")
        batches = [[scene_example(predictor, scene) for scene in batch] for batch in TRAINED_ALIKE]
        found |= train(predictor.model, batches, steps=3, sgd=sgd)
        if kind == "vit":
            found |= vitdet_rates(predictor.model)
        state = predictor.model.state_dict()
        shapes = [f"{name} {' '.join(map(str, value.shape))}" for name, value in state.items()]
        found["weights"] = np.array(shapes)
        norms = [np.linalg.norm(value) for name, value in found.items() if name.startswith("gradients/")]
        found["gradient_norms"] = np.array(norms, np.float32)
        arrays |= prefixed({name: thin(value) for name, value in found.items()}, kind)
    return arrays


def choose_images(folder: Path, count: int) -> list[Path]:
    """The first images of a folder, one of each shape before a second of any shape."""
    shapes: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            shapes.setdefault(image.size, []).append(path)
    rounds = itertools.zip_longest(*shapes.values())
    return [path for paths in rounds for path in paths if path is not None][:count]


def inference(predictor: Any, paths: list[Path]) -> Arrays:
    """Each image's detections, and the stages of images 0 and 1."""
    from detectron2.data.detection_utils import read_image

    arrays: Arrays = {}
    for index, path in enumerate(paths):
        start = time.perf_counter()
        found, stages = predict(predictor, read_image(str(path), format="BGR"))
        seconds = time.perf_counter() - start
        found["file_name"] = np.array(path.name)
        if index < 2:
            found |= stages
        arrays |= prefixed(found, str(index))
        print(f"{path.name}: {describe(found)}, {seconds:.1f} s")
    return arrays


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def describe(found: Arrays) -> str:
    """A summary of the detections in words."""
    labels, scores = found["labels"], found["scores"]
    return (
        f"{len(labels)} detections of {len(set(labels))} categories, scores "
        f"{scores.min(initial=1):.3f} to {scores.max(initial=0):.3f}"
    )


if __name__ == "__main__":
    main()
