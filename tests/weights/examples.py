"""Weights and categories to make runs from."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.weights import detectron2, mmdetection, torchvision

_LAYOUTS = {
    "torchvision": torchvision.layouts,
    "detectron2": detectron2.layouts,
    "mmdetection": mmdetection.layouts,
}
SCORES = "roi_heads.box_predictor.cls_score.bias"
DRAWN = ("box_head.cls_score", "box_head.bbox_pred", "mask_head.mask_fcn_logits")  # for new categories


def changed(config: Config, **model: object) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def arrays_of(source: str, config: Config, *, classes: int, keypoints: int = 0) -> dict[str, np.ndarray]:
    """Random arrays with the source's names and shapes."""
    blueprint = make_blueprint(config.model, num_classes=classes, num_keypoints=keypoints)
    rng = np.random.default_rng(0)
    return {x.name: rng.random(x.shape, np.float32) for x in _LAYOUTS[source](blueprint).values()}


def categories_file(path: Path, *, classes: int, keypoints: int) -> Path:
    """A COCO-format JSON with category ids 2, 4, ...; the last category has the keypoints."""
    entries: list[dict] = [{"id": 2 * i, "name": f"thing {i}"} for i in range(1, classes + 1)]
    if keypoints:
        entries[-1]["keypoints"] = [f"point {i}" for i in range(keypoints)]
    path.write_text(json.dumps({"categories": entries}))
    return path
