"""What both kinds of files need: what they say of the model, sizes of images, and results from outputs."""

import json
from typing import Any

import numpy as np

from .pasting import paste_at_centres, paste_in_whole_pixels, to_rle
from .resizing import Size, resized_shape

VERSION = 1  # of the files' format


class Detector:
    """What a file of either kind says of its model, and what is done with the images and what is found."""

    channels: int  # of an image

    def __init__(self, texts: dict[str, Any]) -> None:
        self.manifest, self.config, self.categories = (
            json.loads(texts[name]) for name in ("manifest", "config", "categories")
        )
        if (version := self.manifest["version"]) != VERSION:
            raise ValueError(
                f"has format {version}, not {VERSION}: take the runner of the mrcnn_jax that wrote it"
            )

    def check(self, images: list[np.ndarray]) -> None:
        """Raises ValueError for an image that is empty or not of 8-bit pixels with the model's channels."""
        if isinstance(images, np.ndarray):
            raise ValueError("an image must be given in a list: model([pixels])")
        for number, image in enumerate(images):
            dtype, shape = getattr(image, "dtype", type(image).__name__), getattr(image, "shape", ())
            if dtype != np.uint8 or shape[2:] != (self.channels,) or 0 in shape:
                rule = f"must be a uint8 array [H W {self.channels}]"
                raise ValueError(f"image {number} {rule}, got {dtype} {list(shape)}")

    def resized_shape(self, image: np.ndarray) -> Size:
        """The size to which an image must be resized for the model."""
        rule, manifest = self.config["data"]["resize"], self.manifest
        return resized_shape(image.shape[:2], manifest["short_side"], manifest["long_side"], rule)

    def finish(self, found: dict[str, np.ndarray], size: Size, image_size: Size) -> dict[str, Any]:
        """The valid objects of an image, scaled from its resized ``size`` to its own."""
        (height, width), test, categories = image_size, self.config["test"], self.categories
        scale = np.array([width / size[1], height / size[0]], np.float32)
        limit = np.array([width, height, width, height], np.float32)
        boxes = np.clip(found["boxes"] * np.tile(scale, 2), 0, limit)
        keep = np.flatnonzero(found["valid"] & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        boxes, labels = boxes[keep], found["labels"][keep]
        result: dict[str, Any] = {"boxes": boxes, "scores": found["scores"][keep], "labels": labels}
        result["names"], result["category_ids"] = (
            [categories[field][label - 1] for label in labels] for field in ("names", "ids")
        )
        if "masks" in found:
            paste = paste_in_whole_pixels if test["mask_paste"] == "torchvision" else paste_at_centres
            masks = zip(found["masks"][keep].astype(np.float32), boxes, strict=True)
            result["crops"] = [paste(*mask, image_size, test["mask_threshold"]) for mask in masks]
            result["segmentations"] = [to_rle(crop, image_size) for crop in result["crops"]]
        if "keypoints" in found:
            keypoints = found["keypoints"][keep]
            keypoints[..., :2] *= scale
            keypoints[~np.isin(labels, categories["keypoint_labels"])] = 0
            result["keypoints"] = keypoints
        return result
