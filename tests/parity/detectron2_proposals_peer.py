"""Writes what Detectron2's Fast R-CNN detects, given proposals, for ``measure_proposals.py``.

Runs in the environment of ``detectron2_peer.py``. ``DIR/proposals.npz`` is a file of proposals of this
project's for the images, in their order. ``DIR/weights.pkl`` and ``DIR/inference.npz`` are written, as
described there: the detections alone.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from detectron2_inference import array
from detectron2_models import build_full

MODEL = "COCO-Detection/fast_rcnn_R_50_FPN_1x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--gain", action="append", default=[])
    parser.add_argument("images", type=Path, nargs="+")
    args = parser.parse_args()
    predictor = build_full(args.source, MODEL, args.output / "weights.pkl", {}, gains=args.gain)

    from detectron2.data.detection_utils import read_image, transform_proposals
    from detectron2.structures import BoxMode

    found: dict[str, np.ndarray] = {}
    with np.load(args.output / "proposals.npz") as proposals:
        offsets, boxes, objectness = (proposals[name] for name in ("offsets", "boxes", "objectness"))
    for index, path in enumerate(args.images):
        image = read_image(str(path), format="BGR")
        resize = predictor.aug.get_transform(image)
        resized = resize.apply_image(image)
        rows = slice(offsets[index], offsets[index + 1])
        entry = {
            "image": torch.as_tensor(resized.astype("float32").transpose(2, 0, 1)),
            "height": image.shape[0],
            "width": image.shape[1],
            "proposal_boxes": boxes[rows],
            "proposal_bbox_mode": BoxMode.XYXY_ABS,
            "proposal_objectness_logits": objectness[rows],
        }
        count = predictor.cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
        transform_proposals(entry, resized.shape[:2], resize, proposal_topk=count)
        with torch.no_grad():
            (output,) = predictor.model([entry])
        instances = output["instances"]
        found[f"{index}/boxes"] = array(instances.pred_boxes.tensor)
        found[f"{index}/scores"] = array(instances.scores)
        found[f"{index}/labels"] = array(instances.pred_classes) + 1
        print(f"{path.name}: {len(instances)} detections")
    np.savez(args.output / "inference.npz", **found)


if __name__ == "__main__":
    main()
