"""Tiny models of other architectures, the paper's (tables 2d and 8, figure 4) and later, learn."""

import dataclasses

import jax
import numpy as np
import pytest

from mrcnn_jax.config.io import validate
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.detector import make_predict_fn
from mrcnn_jax.models import convnext, swin
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training.step import compile_step, make_state

_LATER = {"backbone_depth": 50, "backbone_norm": "frozen_batch", "backbone_frozen_stages": 0}
ARCHITECTURES = {
    "C5, non-local": {
        "features": "c5",
        "non_local": "subsampled",
        "backbone_frozen_stages": 2,
        "backbone_recomputed_stages": 3,
    },
    "C4 with stride 1, non-local": {
        "features": "c4",
        "non_local": "full",
        "backbone_norm": "frozen_batch",
        "backbone_recomputed_stages": 0,
        "res5_stride": 1,
        "box_fcs": 0,
        "mask_convs": 0,
        "mask_pool_size": 7,
    },
    "ConvNeXt": _LATER | {"backbone": "convnext_t", "backbone_drop_path": 0.1},
    "Swin, bfloat16": _LATER | {"backbone": "swin_t", "dtype": "bfloat16"},
    "FPN, non-local, bfloat16": {"non_local": "subsampled", "backbone_norm": "group", "dtype": "bfloat16"},
}
MASK_SIZES = {"c5": 28, "c4": 14, "fpn": 28}


@pytest.mark.slow
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_batch_is_learnt_and_its_objects_are_detected(tiny_config, tiny_batch, changes, monkeypatch):
    for sizes in (convnext.SIZES, swin.SIZES):  # few blocks
        for name, size in sizes.items():
            monkeypatch.setitem(sizes, name, size._replace(depths=(1, 1, 1, 2)))
    # SGD would not change a branch of ConvNeXt, which is scaled by 1e-6 at first, beyond rounding.
    train = {"optimizer": "adamw", "learning_rate": 3e-3} if "backbone" in changes else {}
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, keypoint=False, **changes),
        train=dataclasses.replace(tiny_config.train, batch_size=2, **train),
    )
    validate(config)
    blueprint = make_blueprint(config.model, num_classes=4)
    batch = jax.tree.map(lambda x: x[:2], tiny_batch)
    batch = batch.replace(gt=batch.gt.replace(keypoints=None, masks=np.ones_like(batch.gt.masks)))
    mesh = make_mesh(jax.devices()[:1])
    step = compile_step(blueprint, config, mesh)
    weights = blueprint.draw(jax.random.key(0))
    params, _, _ = jax.device_get(blueprint.split(weights))
    state = make_state(blueprint, weights, config)
    losses = []
    for _ in range(10):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    unchanged = [name for name in params if np.array_equal(state.params[name], params[name])]
    assert not unchanged

    predict = make_predict_fn(blueprint, config, mesh)(state.weights())
    found = jax.device_get(predict(batch.images, batch.image_sizes))
    size = MASK_SIZES[config.model.features]
    assert found.valid.all() and found.masks.shape == (2, 8, size, size)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
