"""The gradient of a batch in parts: that of the batch at once."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import Config, TrainConfig
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training import accumulation
from mrcnn_jax.training.accumulation import accumulate_gradients, split_batch
from mrcnn_jax.training.losses import LossSums
from mrcnn_jax.training.objective import image_keys
from mrcnn_jax.training.step import compile_step, make_state
from mrcnn_jax.types import Batch, GroundTruth
from tests.training.test_step import collectives


def small_batch(labels):
    """Images of one object each, with these labels."""
    count = len(labels)
    return Batch(
        images=jnp.arange(count, dtype=jnp.float32).reshape(count, 1, 1, 1),
        image_sizes=jnp.ones((count, 2), jnp.int32),
        ids=None,
        gt=GroundTruth(
            boxes=jnp.zeros((count, 1, 4)),
            labels=jnp.array(labels, jnp.int32)[:, None],
            crowd=jnp.zeros((count, 1), bool),
            valid=jnp.ones((count, 1), bool),
        ),
    )


def test_the_parts_take_the_images_in_turn_with_their_keys():
    keys = image_keys(jax.random.key(0), 6)
    parts, part_keys = split_batch(small_batch([1] * 6), keys, 2)
    assert parts.images.reshape(2, 3).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert part_keys.shape == (2, 2, 3)
    np.testing.assert_array_equal(*map(jax.random.key_data, (part_keys[1], keys[:, 1::2])))


class Weights(MaskRCNN):
    def __init__(self, weight, seen):
        self.weight, self.seen = nnx.Param(weight), nnx.BatchStat(seen)


def test_by_hand(monkeypatch):
    """Of four images in two parts with 1 and 3 positives, whose means would weigh the first part more."""

    def sum_losses(model, batch, keys, config, image_counts):
        model.seen[...] += 1
        positive = batch.gt.labels[:, 0] > 0
        rows = model.weight[...] * batch.images[:, 0, 0, 0]
        return {
            "rpn": LossSums({"rpn_box": rows.sum()}, 10 * len(rows)),
            "box": LossSums({"box": jnp.where(positive, rows**2, 0).sum()}, positive.sum()),
        }

    monkeypatch.setattr(accumulation, "sum_losses", sum_losses)
    losses, batch_stats, gradients = accumulate_gradients(
        lambda params, batch_stats: Weights(params["weight"], batch_stats["seen"]),
        {"weight": jnp.array(2.0)},
        {"seen": jnp.array(5.0)},
        small_batch([0, 1, 2, 1]),
        jax.random.key(0),
        Config(train=TrainConfig(accumulate=2)),
    )
    # The images are 0, 1, 2 and 3; all but the first are positive. 2 (0 + 1 + 2 + 3) / 40; 4 (1 + 4 + 9) / 3.
    assert {name: float(x) for name, x in losses.items()} == pytest.approx({"rpn_box": 0.3, "box": 56 / 3})
    assert float(gradients["weight"]) == pytest.approx(6 / 40 + 2 * 2 * 14 / 3)
    assert float(batch_stats["seen"]) == 7  # once for each part, not for counting


@pytest.mark.slow
def test_a_step_in_parts_is_that_of_the_whole_batch(tiny_config, tiny_batch):
    """With other numbers of objects, keypoints and masks in every image, on one device and on two.

    Group norm has no statistics of the batch, and TV's normaliser of the RPN's losses depends on the batch.
    """
    model = dataclasses.replace(tiny_config.model, backbone_norm="group", box_agnostic=True)
    model.box_cascade = ((20.0, 20.0, 10.0, 10.0),)
    settings = {"rpn_normalizer": "sampled", "cascade_positive_ious": (0.6,), "clip_norm": 1.0}
    train = dataclasses.replace(tiny_config.train, **settings)
    blueprint = make_blueprint(model, num_classes=4, num_keypoints=9)
    weights = jax.device_get(blueprint.draw(jax.random.key(1)))
    valid = np.arange(4) < np.array([0, 3, 1, 2, 0, 4, 1, 3])[:, None]
    masks = np.where(np.arange(8)[:, None, None, None] % 3 == 0, 0, tiny_batch.gt.masks)
    batch = tiny_batch.replace(gt=tiny_batch.gt.replace(valid=valid, masks=masks.astype(np.uint8)))

    def step(accumulate, devices):
        config = dataclasses.replace(
            tiny_config, model=model, train=dataclasses.replace(train, accumulate=accumulate)
        )
        mesh = make_mesh(jax.devices()[:devices])
        state = jax.device_put(
            make_state(blueprint, jax.tree.map(jnp.array, weights), config), replicated(mesh)
        )
        take_step = compile_step(blueprint, config, mesh)
        on_devices = jax.device_put(batch, batch_sharding(mesh))
        program = take_step.lower(state, on_devices).compile().as_text()
        assert set(collectives(program)) <= {"all-reduce"}
        if accumulate > 1:  # counting needs the first box head, whose boxes the second one takes
            assert "/count/" in program and not re.search("/count/.*(mask_head|keypoint_head)", program)
        after = take_step(state, on_devices)
        return jax.device_get((after[0].params, after[1]))

    params, metrics = step(1, devices=1)
    for accumulate, devices in ((4, 1), (2, 2)):
        found_params, found = step(accumulate, devices)
        assert found.keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)
        moved = max(np.abs(value - weights[name]).max() for name, value in params.items())
        for name, value in params.items():
            np.testing.assert_allclose(found_params[name], value, atol=1e-4 * moved, err_msg=name)


def test_what_does_not_divide(tiny_blueprint, tiny_config):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, accumulate=2))
    with pytest.raises(ValueError) as error:
        compile_step(tiny_blueprint, config, make_mesh())
    assert (
        "train.batch_size (8) must be divisible by the number of devices (8), times train.accumulate (2)"
        in str(error.value)
    )
