import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.ops import levels

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "torchvision_ops.npz")
assign_levels = jax.jit(
    levels.assign_levels, static_argnames=("min_level", "max_level", "canonical_size", "rule")
)


def test_levels_by_hand():
    side = jnp.array([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = jnp.stack([side * 0, side * 0, side * 2, side / 2], axis=1)
    level = assign_levels(boxes, min_level=2, max_level=5)
    np.testing.assert_array_equal(level, [2, 2, 3, 3, 4, 4, 5, 5])
    np.testing.assert_array_equal(assign_levels(boxes[:1] * 0, min_level=2, max_level=5), [2])


def test_the_rules_differ_just_below_a_power_of_two():
    # Half a millionth below 224, 4 + log2 is 7e-7 below 4, which torchvision's 1e-6 makes up for.
    boxes = jnp.array([[0.0, 0, 223.9999, 223.9999], [0, 0, 223.9, 223.9], [0, 0, 224, 224]])
    found = {
        rule: assign_levels(boxes, min_level=2, max_level=5, rule=rule).tolist()
        for rule in ("detectron2", "torchvision", "mmdetection")
    }
    # MMDetection's 1e-6 is of a quarter of the size: 4 + 1e-6 less 1.8e-6.
    assert found == {"detectron2": [3, 3, 4], "torchvision": [4, 3, 4], "mmdetection": [3, 3, 4]}
    nearly = jnp.array([[0.0, 0, 223.99995, 223.99995]])
    assert assign_levels(nearly, min_level=2, max_level=5, rule="mmdetection").tolist() == [4]
    assert assign_levels(nearly, min_level=2, max_level=5).tolist() == [3]
    rules = "it must be 'detectron2', 'torchvision' or 'mmdetection'"
    with pytest.raises(ValueError, match=f"level rule is 'keras'; {rules}"):
        assign_levels(boxes, min_level=2, max_level=5, rule="keras")


@pytest.mark.parametrize("rule", ["detectron2", "torchvision", "mmdetection"])
def test_boxes_of_padding_have_a_level_of_a_map(rule):
    boxes = jnp.array([[np.nan] * 4, [np.inf] * 4, [0, 0, np.nan, 5], [-np.inf, 0, np.inf, 5], [5, 5, 0, 9]])
    level = np.asarray(assign_levels(boxes, min_level=2, max_level=5, rule=rule))
    assert ((level >= 2) & (level <= 5)).all()


def test_equals_torchvision():
    boxes = jnp.asarray(REFERENCE["pyramid/boxes"])
    level = assign_levels(boxes, min_level=2, max_level=5, canonical_size=28.0)
    np.testing.assert_array_equal(level, REFERENCE["pyramid/level"])


def test_maps_are_in_the_order_of_their_levels():
    features = {f"p{k}": jnp.full((64 >> k, 64 >> k, 1), k) for k in (4, 3, 5)}
    sizes = {f"p{k}": jnp.array([k, 1]) for k in (5, 4, 3)}
    boxes = jnp.array([[0.0, 0, 30, 30], [0, 0, 448, 448], [0, 0, 300, 300]])  # of p2, p5 and p4
    maps, strides, map_sizes, level = levels.maps_and_levels(
        features, sizes, boxes, canonical_size=224.0, rule="detectron2"
    )
    assert [values.shape for values in maps] == [(8, 8, 1), (4, 4, 1), (2, 2, 1)]
    assert strides == [8.0, 16.0, 32.0] and [int(size[0]) for size in map_sizes] == [3, 4, 5]
    assert level.tolist() == [0, 2, 1]  # p2 is absent
