"""Writes what MMDetection computes, stage by stage, for ``measure.py`` to compare with.

    python tests/parity/mmdetection_peer.py --output=DIR --model=mask_rcnn/mask-rcnn_r50_fpn_1x_coco \\
        --images=DIR_OF_IMAGES --count=4
    python tests/parity/mmdetection_peer.py --tiny --output=tests/fixtures/mmdetection_models.npz

runs MMDetection 3.3 in an environment with torch, torchvision, mmdet, mmengine, mmcv-lite 2.1 and opencv.
mmcv's compiled operators are torchvision's (``mmdetection_operators.py``).

Unless noted, arrays are float32, images and features are channels-last without a batch axis, and boxes are
``x1 y1 x2 y2`` in pixels of the resized image. A level is "p2" to "p6". Labels are 1 to the number of
categories, in the order of their COCO ids; 0 is the background.

``DIR/weights.pth`` holds the model's weights, as a file of MMDetection's model zoo does.

``DIR/inference.npz``, for each image i = 0, 1, ...:

- ``i/file_name``; ``i/image_size`` height and width after resizing, int
- ``i/pixels [H W 3]``: what the model sees, normalised and padded, in its channel order
- the detections, in pixels of the image file: ``i/boxes [D 4]``, ``i/scores [D]``, ``i/labels [D]`` int,
  ``i/masks`` (packed bits of the pasted masks) and their shape ``i/mask_shape`` (D, height, width)

and for images 0 and 1, or all of ``--tiny``:

- ``i/backbone/c2`` to ``c5`` and ``i/features/<level>``
- ``i/objectness/<level> [A]`` logits, ``i/deltas/<level> [A 4]``, ``i/anchors/<level> [A 4]``, ordered by
  row, column, size, ratio
- ``i/proposals/boxes [R 4]``, ``i/proposals/scores [R]`` probabilities
- ``i/box_logits [R categories+1]``, the background last; ``i/box_deltas [R categories 4]``, or ``[R 1 4]``
  if class-agnostic; of a cascade, those of the first head
- ``i/detected_boxes [D 4]``, ``i/detected_labels [D]`` int: before boxes are scaled back to the image file
- ``i/mask_logits [D M M]`` of the detected category; of a cascade, those of the first head

``--tiny`` writes a fixture: the same keys, prefixed with "mask/", "cascade/", "deform/", "swin/" and
"faster/", for the narrow models of ``mmdetection_models.py`` on the scenes ``DETECTED`` of ``seeded.py``.
Arrays are reduced by ``thin``. ``<model>/weights`` lists the state dict, a name and its shape per row;
``mmdetection_seeded.py`` makes the values.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdetection_models import TINY_MODELS, build, read_config, state_dict, tiny_config

# The operators must be in place before these.
from mmdetection_inference import Arrays, make_pipeline, predict  # isort: skip
from seeded import DETECTED, thin
from torchvision_coco import choose_images


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.tiny:
        np.savez_compressed(args.output, **tiny())
        return
    args.output.mkdir(parents=True, exist_ok=True)
    model = build(read_config(args.model), args.gain)
    torch.save({"meta": {"epoch": 12}, "state_dict": model.state_dict()}, args.output / "weights.pth")
    pipeline = make_pipeline(args.short_side, args.long_side)
    arrays: Arrays = {}
    for index, path in enumerate(choose_images(args.images, args.count)):
        start = time.perf_counter()
        found, stages = predict(model, pipeline, cv2.imread(str(path)))
        seconds = time.perf_counter() - start
        print(f"{path.name}: {describe(found)}, {seconds:.1f} s")
        found |= {"file_name": np.array(path.name)} | (stages if index < 2 else {})
        arrays |= prefixed(found, str(index))
    np.savez(args.output / "inference.npz", **arrays)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a file of MMDetection's configs/, without .py")
    parser.add_argument("--tiny", action="store_true", help="write the fixture; no other options")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--gain", action="append", default=[], help="PATTERN=FACTOR (seeded.factor)")
    parser.add_argument("--short_side", type=int, default=800)
    parser.add_argument("--long_side", type=int, default=1333)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.tiny and not (args.model and args.images):
        parser.error("--model and --images are needed, or --tiny")
    return args


def tiny() -> Arrays:
    """The fixture's arrays: the narrow models' results."""
    arrays: Arrays = {}
    pipeline = make_pipeline(96, 160)
    for kind in TINY_MODELS:
        model = build(tiny_config(kind))
        found: Arrays = {}
        for i, scene in enumerate(DETECTED):
            detections, stages = predict(model, pipeline, scene.image[..., ::-1].copy())
            found |= prefixed(detections | stages, str(i))
            print(f"{kind}: {describe(detections)}")
        shapes = [f"{name} {' '.join(map(str, v.shape))}" for name, v in state_dict(model).items()]
        found["weights"] = np.array(shapes)
        arrays |= prefixed({name: thin(value) for name, value in found.items()}, kind)
    return arrays


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def describe(found: Arrays) -> str:
    """A summary of the detections in words."""
    labels, scores = found["labels"], found["scores"]
    return (
        f"{len(labels)} detections of {len(set(labels.tolist()))} categories, scores "
        f"{scores.min(initial=1):.3f} to {scores.max(initial=0):.3f}"
    )


if __name__ == "__main__":
    main()
