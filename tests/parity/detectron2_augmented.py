"""Writes what Detectron2 detects with test-time augmentation, for ``test_detectron2.py`` to compare with.

    python tests/parity/detectron2_augmented.py --source=DETECTRON2 \\
        --output=tests/fixtures/detectron2_augmented.npz

runs its ``GeneralizedRCNNWithTTA`` on the scenes ``DETECTED`` of ``seeded.py``, with the narrow models and in
the environment of ``detectron2_peer.py``. Views are computed one by one: in a batch of several sizes
Detectron2 pads all to the largest, which changes its results (docs/fidelity.md, "What still differs").

The keys are ``<model>/<scene>/`` with boxes, scores, labels, masks and mask_shape as in
``detectron2_peer.py``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from detectron2_inference import Arrays, array
from detectron2_models import build_tiny
from seeded import AUGMENTED, DETECTED

MODELS = ("mask", "c4")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    arrays: Arrays = {}
    for kind in MODELS:
        predictor = build_tiny(args.source, kind, settings())
        for number, scene in enumerate(DETECTED):
            found = detect(predictor, scene.image[..., ::-1])
            arrays |= {f"{kind}/{number}/{name}": value for name, value in found.items()}
            print(f"{kind}, scene {number}: {len(found['scores'])} detections")
    np.savez_compressed(args.output, **arrays)


def settings() -> dict:
    """Those of ``detectron2_peer.tiny`` at inference, with several scales."""
    return {
        "TEST.AUG.MIN_SIZES": AUGMENTED["scales"],
        "TEST.AUG.MAX_SIZE": 400,
        "TEST.AUG.FLIP": AUGMENTED["flip"],
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 300,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 200,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
        "TEST.DETECTIONS_PER_IMAGE": 20,
    }


def detect(predictor: object, image: np.ndarray) -> Arrays:
    """The detections in an image ``[H W 3]``, BGR, in its pixels."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    model = GeneralizedRCNNWithTTA(predictor.cfg, predictor.model, batch_size=1)
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    with torch.no_grad():
        found = model([{"image": pixels, "height": height, "width": width}])[0]["instances"]
    return {
        "boxes": array(found.pred_boxes.tensor),
        "scores": array(found.scores),
        "labels": array(found.pred_classes) + 1,
        "masks": np.packbits(array(found.pred_masks)),
        "mask_shape": np.array(found.pred_masks.shape),
    }


if __name__ == "__main__":
    main()
