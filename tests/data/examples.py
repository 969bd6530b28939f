"""Shared by the tests of damaged datasets: a small training config, and checks of every training example."""

import numpy as np

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.data.pipeline import load_example, plan_batches

GRID = 8


def config_of(folder, **changes):
    """A training config for a folder that uses all of its images, even those without objects."""
    arguments = folder.write()
    data = DataConfig(
        root=str(arguments["root"]),
        train_images=arguments["images"],
        train_annotations=arguments["annotations"],
        train_short_sides=(16,),
        long_side=32,
        canvases=((32, 32),),
        max_objects=5,
        mask_grid=GRID,
        keep_empty=True,
    )
    for name, value in changes.items():
        setattr(data, name, value)
    return Config(data=data, model=ModelConfig(keypoint=True))


def check_examples(source, config):
    """Checks one training example of every image in the source; returns the number of images."""
    _, kept, canvases = plan_batches(source, config.data, batch_size=1, seed=0, keypoints=True)
    for index in kept:
        example = load_example(
            source, int(index), config.data, generator=np.random.default_rng(0), canvas=canvases[0],
            masks=True, keypoints=bool(source.categories.keypoint_names),
        )  # fmt: skip
        height, width = example["image_sizes"]
        assert 1 <= height <= 32 and 1 <= width <= 32
        points = example.get("keypoints", np.zeros((0, 3)))
        for values in (example["boxes"], example["mask_boxes"], points):
            assert np.isfinite(values).all()
        boxes, valid = example["boxes"], example["valid"]
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        assert (boxes[valid, 2:] > boxes[valid, :2]).all()
        assert np.isin(example["labels"][valid], np.arange(1, len(source.categories) + 1)).all()
        assert example["masks"].max(initial=0) <= 1 and np.isin(points[..., 2], (0, 1, 2)).all()
    return len(kept)
