"""The reference for benchmarks/data.py: a PyTorch DataLoader of COCO images, without a model.

For each image, a worker does what torchvision's reference training does between file and model: decode
(Pillow), rasterise every mask at full size (pycocotools), flip half of the time, convert to float, and, like
the model's transform, normalise and resize image and masks. Batches are padded to one size. The results are
printed as one line of JSON.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class CocoImages(torch.utils.data.Dataset):
    """COCO images that have objects, transformed as for training."""

    def __init__(self, images: Path, annotations: Path, short_side: int, long_side: int) -> None:
        self.images, self.coco = images, COCO(str(annotations))
        self.ids = [i for i in sorted(self.coco.imgs) if self.coco.getAnnIds(i, iscrowd=False)]
        self.transform = GeneralizedRCNNTransform(
            short_side, long_side, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        info = self.coco.imgs[self.ids[index]]
        objects = self.coco.loadAnns(self.coco.getAnnIds(info["id"], iscrowd=False))
        with Image.open(self.images / info["file_name"]) as file:
            image = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        masks = np.stack([self._mask(item, info) for item in objects])
        boxes = torch.tensor([item["bbox"] for item in objects], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "boxes": boxes,
            "labels": torch.tensor([item["category_id"] for item in objects]),
            "masks": torch.from_numpy(masks),
        }
        image = image.float() / 255
        if random.random() < 0.5:
            image, target["masks"] = image.flip(-1), target["masks"].flip(-1)
            target["boxes"][:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
        return self.transform.resize(self.transform.normalize(image), target)

    def _mask(self, item: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        polygons = mask_utils.frPyObjects(item["segmentation"], info["height"], info["width"])
        return mask_utils.decode(mask_utils.merge(polygons))

    def collate(self, examples: list) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        images, targets = zip(*examples, strict=True)
        return self.transform.batch_images(list(images)), list(targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    for name in ("short_side", "long_side", "count", "batch_size", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = CocoImages(args.images, args.annotations, args.short_side, args.long_side)
    steps = -(-args.count // args.batch_size)
    warm = 2 * args.workers
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=args.batch_size,
        sampler=torch.utils.data.RandomSampler(
            dataset, replacement=True, num_samples=(steps + warm) * args.batch_size
        ),
        num_workers=args.workers,
        collate_fn=dataset.collate,
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )
    size = 0
    for step, (images, targets) in enumerate(loader):
        if step == warm - 1:
            start = time.perf_counter()
        if step >= warm:
            tensors = [images, *(tensor for target in targets for tensor in target.values())]
            size += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    seconds = time.perf_counter() - start
    print(
        json.dumps({"images_per_second": steps * args.batch_size / seconds, "bytes_per_batch": size / steps})
    )


if __name__ == "__main__":
    main()
