"""Evaluates weights exported for torchvision, in torchvision, with pycocotools.

    python tests/parity/torchvision_evaluate.py --weights=mine.safetensors --num_classes=2 \
        --images=DATA/val --annotations=DATA/annotations/instances_val.json \
        [--short_side=256 --long_side=352 --anchor_sizes 16 32 64 128 256 --canonical_size=112 \
        --mean 123.68 116.779 103.939 --std 1 1 1 --epsilon=1e-5]

runs in an environment with torchvision 0.28, pycocotools and, for ``.safetensors``, safetensors. The options
are those that ``mrcnn-jax convert --target=torchvision`` lists as different from torchvision's
defaults; pixels are 0 to 255.
"""

import argparse
import json

import numpy as np
import torch
import torchvision
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign


def main() -> None:
    args = parse_args()
    model = build(args)
    truth = COCO(args.annotations)
    categories = sorted(truth.getCatIds())
    results = []
    for image_id in truth.getImgIds():
        picture = Image.open(f"{args.images}/{truth.imgs[image_id]['file_name']}").convert("RGB")
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            (found,) = model([pixels])
        rows = (found[name].tolist() for name in ("boxes", "scores", "labels"))
        for box, score, label, mask in zip(*rows, found["masks"], strict=True):
            rle = mask_utils.encode(np.asfortranarray(mask[0].numpy() > 0.5).astype(np.uint8))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": categories[label - 1],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "score": score,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        print(f"{kind} AP {100 * evaluation.stats[0]:.3f}")


def build(args: argparse.Namespace) -> torch.nn.Module:
    """torchvision's model with the weights, in inference mode, so that batch norms are frozen."""
    anchors = AnchorGenerator(tuple((size,) for size in args.anchor_sizes), ((0.5, 1.0, 2.0),) * 5)
    levels = ["0", "1", "2", "3"]
    pools = {
        f"{kind}_roi_pool": MultiScaleRoIAlign(levels, size, 2, canonical_scale=args.canonical_size)
        for kind, size in (("box", 7), ("mask", 14))
    }
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=args.num_classes,
        min_size=args.short_side,
        max_size=args.long_side,
        image_mean=[value / 255 for value in args.mean],
        image_std=[value / 255 for value in args.std],
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_test=args.pre_nms,
        rpn_post_nms_top_n_test=args.post_nms,
        **pools,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | FrozenBatchNorm2d):
            module.eps = args.epsilon
    if args.weights.endswith(".npz"):
        with np.load(args.weights) as archive:
            state = {name: torch.from_numpy(archive[name]) for name in archive}
    else:
        from safetensors.torch import load_file

        state = load_file(args.weights)
    print(model.load_state_dict(state, strict=True))
    return model.eval()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--num_classes", type=int, required=True, help="including the background")
    parser.add_argument("--images", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--short_side", type=int, default=800)
    parser.add_argument("--long_side", type=int, default=1333)
    parser.add_argument("--anchor_sizes", type=int, nargs=5, default=[32, 64, 128, 256, 512])
    parser.add_argument("--canonical_size", type=int, default=224)
    parser.add_argument("--mean", type=float, nargs=3, default=[123.675, 116.28, 103.53])
    parser.add_argument("--std", type=float, nargs=3, default=[58.395, 57.12, 57.375])
    parser.add_argument("--epsilon", type=float, default=1e-5)
    parser.add_argument("--pre_nms", type=int, default=1000)
    parser.add_argument("--post_nms", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
