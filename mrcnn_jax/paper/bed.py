"""The paper's models at a scale that two CPU cores carry: drawn shapes, and narrow layers."""

import dataclasses
import os
from pathlib import Path

from tqdm import tqdm

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.paper.full_scale import RPN_ALONE, backbone_name, proposals_file
from mrcnn_jax.weights.zoo_models import named_config

_TRAIN, _VAL, _SIDE = 3000, 400, 192  # pictures, and their side in pixels: 6 cells of a stride of 32
_DEPTHS = {50: 18, 101: 34}
_WIDTH = 16  # of the backbone; 64 in the paper

# What rows vary: which features and heads there are, how these are built, and how regions are pooled.
_VARIED = (
    *("features", "res5_stride", "non_local", "roi_aligned", "roi_sampling_ratio", "roi_pooling"),
    *("box_pool_size", "box_fcs"),
    *("mask", "mask_pool_size", "mask_fcs", "mask_loss", "mask_agnostic", "keypoint"),
)


def shrink(config: Config, data: Path, *, seed: int) -> Config:
    """The small counterpart of a config of the paper: ``configs/shapes.py`` with what rows vary.

    It has no RPN, but the proposals of its backbone's. ``data`` is the folder of the shapes.
    """
    small, paper = named_config("shapes"), config.model
    scale = _SIDE / small.data.test_short_side
    small = dataclasses.replace(
        small,
        model=dataclasses.replace(
            small.model,
            rpn=False,
            backbone_depth=_DEPTHS[paper.backbone_depth],
            backbone_width=_WIDTH,
            roi_canonical_size=scale * small.model.roi_canonical_size,
            anchor_sizes=tuple(scale * size for size in small.model.anchor_sizes),
            mask_convs=min(paper.mask_convs, small.model.mask_convs),
            mask_fc_channels=small.model.box_channels,
            **{name: getattr(paper, name) for name in _VARIED},
        ),
        data=dataclasses.replace(
            small.data,
            root=str(data),
            train_short_sides=(_SIDE,),
            test_short_side=_SIDE,
            long_side=_SIDE,
            canvases=((_SIDE, _SIDE),),
        ),
        train=dataclasses.replace(
            small.train,
            steps=800,
            batch_size=4,
            learning_rate=0.0015,
            roi_samples=16,
            seed=seed,
            log_every=50,
            checkpoint_every=200,
            eval_every=0,
        ),
    )
    name = backbone_name(small)
    small.data.train_proposals = proposals_file(name, "train")
    small.data.val_proposals = proposals_file(name, "val")
    return small


def draw(folder: Path) -> None:
    """Draws the pictures, unless they are there."""
    with tqdm(total=_TRAIN + _VAL, unit="image", desc=str(folder), leave=False, disable=None) as bar:
        make_shapes(
            folder,
            train=_TRAIN,
            val=_VAL,
            image_size=_SIDE,
            seed=0,
            workers=os.cpu_count() or 1,
            progress=lambda done: bar.update(),
        )


def rpn_alone(config: Config) -> Config:
    """The RPN of a small config, to be trained by itself; its seed is 0, so that all rows share it.

    It stands for the paper's training on ImageNet, too, and so it is long.
    """
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, rpn=True, **RPN_ALONE),
        data=dataclasses.replace(config.data, train_proposals="", val_proposals=""),
        train=dataclasses.replace(config.train, seed=0, steps=2000, batch_size=8, learning_rate=0.002),
    )
