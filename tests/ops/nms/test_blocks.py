import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mrcnn_jax.distributed.sharding import map_images
from mrcnn_jax.ops.nms import blocks, plain

REFERENCE = np.load(pathlib.Path(__file__).parents[2] / "fixtures" / "torchvision_ops.npz")

nms = jax.jit(blocks.nms, static_argnames=("iou_threshold", "max_outputs", "block"))

# IoU of the first and second, and of the second and third: 2/3; of the first and third: 3/7.
CHAIN = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [50, 50, 60, 60]])
SCORES = np.array([0.9, 0.8, 0.7, 0.95], np.float32)
ALL = np.ones(4, bool)


def kept(result):
    index, valid = result
    return np.asarray(index)[np.asarray(valid)].tolist()


def test_by_hand():
    index, valid = nms(CHAIN, SCORES, ALL, iou_threshold=0.5, max_outputs=6)
    # The third survives, because the box that would suppress it is suppressed itself.
    np.testing.assert_array_equal(index, [3, 0, 2, 0, 0, 0])
    np.testing.assert_array_equal(valid, [True, True, True, False, False, False])


def test_stops_at_max_outputs():
    index, valid = nms(CHAIN, SCORES, ALL, iou_threshold=0.5, max_outputs=2)
    np.testing.assert_array_equal(index, [3, 0])
    assert np.asarray(valid).all()


def test_an_iou_equal_to_the_threshold_does_not_suppress():
    boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 2]])  # IoU 1/2
    two = np.ones(2, bool)
    scores = np.array([1.0, 0.5])
    assert kept(nms(boxes, scores, two, iou_threshold=0.5, max_outputs=2)) == [0, 1]
    assert kept(nms(boxes, scores, two, iou_threshold=0.4999, max_outputs=2)) == [0]


@pytest.mark.parametrize(("tenths", "expected"), [(3, [0]), (7, [0, 1])])
def test_threshold_is_compared_in_double_precision(tenths, expected):
    # As in torchvision. In float32, an IoU of 3/10 is slightly above 0.3, and one of 7/10 slightly below 0.7.
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, tenths]])
    result = nms(boxes, np.array([1.0, 0.5]), np.ones(2, bool), iou_threshold=tenths / 10, max_outputs=2)
    assert kept(result) == expected


def test_classes_do_not_suppress_each_other():
    result = nms(CHAIN, SCORES, ALL, iou_threshold=0.5, max_outputs=4, classes=np.array([1, 2, 1, 1]))
    assert kept(result) == [3, 0, 1, 2]


def test_equal_scores_keep_the_lower_index():
    boxes = np.tile(CHAIN[:1], (3, 1))
    result = nms(boxes, np.full(3, 0.5), np.array([False, True, True]), iou_threshold=0.5, max_outputs=3)
    assert kept(result) == [1]


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e9])
def test_padding_has_no_effect(garbage):
    boxes = np.concatenate([CHAIN, np.full((3, 4), garbage)])
    scores = np.concatenate([SCORES, np.full(3, garbage)])
    result = nms(boxes, scores, np.arange(7) < 4, iou_threshold=0.5, max_outputs=7)
    assert kept(result) == [3, 0, 2]


@pytest.mark.parametrize("block", [None, 4])
def test_no_boxes(block):
    nothing = jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, bool)
    indices, found = nms(*nothing, iou_threshold=0.5, max_outputs=3, block=block)
    assert indices.shape == (3,) and not found.any()


def test_nothing_valid():
    index, valid = nms(CHAIN, SCORES, ~ALL, iou_threshold=0.5, max_outputs=3)
    assert not np.asarray(valid).any()
    np.testing.assert_array_equal(index, [0, 0, 0])


def test_degenerate_boxes_are_kept():
    boxes = np.array([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    assert kept(nms(boxes, SCORES[:3], ALL[:3], iou_threshold=0.5, max_outputs=3)) == [0, 1, 2]


@pytest.mark.parametrize(("threshold", "name"), [(0.7, "kept"), (0.5, "kept_half")])
def test_equals_torchvision(threshold, name):
    boxes, scores = (np.asarray(REFERENCE[f"nms/{k}"]) for k in ("boxes", "tied_scores"))
    result = nms(boxes, scores, np.ones(len(boxes), bool), iou_threshold=threshold, max_outputs=len(boxes))
    np.testing.assert_array_equal(kept(result), REFERENCE[f"nms/{name}"])


def test_rounds_like_torchvision_at_the_threshold():
    pairs = np.asarray(REFERENCE["nms/pairs"])
    _, valid = jax.jit(
        jax.vmap(lambda b: nms(b, np.array([1.0, 0.5]), np.ones(2, bool), iou_threshold=0.7, max_outputs=2))
    )(pairs)
    counts = REFERENCE["nms/pairs_kept"]
    assert set(counts) == {1, 2}
    np.testing.assert_array_equal(valid.sum(axis=1), counts)


def test_equals_torchvision_by_class():
    names = ("boxes", "distinct_scores", "classes")
    boxes, scores, classes = (np.asarray(REFERENCE[f"nms/{name}"]) for name in names)
    valid = np.ones(len(boxes), bool)
    result = nms(boxes, scores, valid, iou_threshold=0.7, max_outputs=len(boxes), classes=classes)
    np.testing.assert_array_equal(kept(result), REFERENCE["nms/kept_by_class"])


def greedy(boxes, scores, valid, classes, threshold, max_outputs):
    """A reference implementation, box by box in float32."""
    result = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        low = np.maximum(boxes[i, :2], boxes[result, :2])
        high = np.minimum(boxes[i, 2:], boxes[result, 2:])
        intersection = np.prod(np.maximum(high - low, 0), axis=1)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        union = areas[i] + areas[result] - intersection
        same = classes[i] == classes[result]
        if not np.any(same & (intersection > np.float32(threshold) * union)):
            result.append(i)
    return result[:max_outputs]


@pytest.mark.parametrize(("block", "max_outputs"), [(7, 12), (8192, 120)])
def test_the_result_does_not_depend_on_the_block_size(block, max_outputs):
    # Whole pixels and a threshold of 1/2, so that many IoUs equal the threshold; some boxes are empty, many
    # scores tie, and rows that are not valid hold NaN.
    rng = np.random.default_rng(0)
    start, size = rng.integers(0, 8, (3, 100, 2)), rng.integers(0, 6, (3, 100, 2))
    boxes = np.concatenate([start, start + size], axis=-1).astype(np.float32)
    scores = (rng.integers(0, 20, (3, 100)) / 20).astype(np.float32)
    valid = rng.random((3, 100)) < [[0.9], [0.5], [0.05]]  # images that end at different steps
    classes = rng.integers(0, 2, (3, 100))
    expected = [greedy(*image, 0.5, max_outputs) for image in zip(boxes, scores, valid, classes, strict=True)]
    boxes[~valid] = scores[~valid] = np.nan

    def one(b, s, v, c):
        return nms(b, s, v, iou_threshold=0.5, max_outputs=max_outputs, classes=c, block=block)

    index, found = map_images(one, *map(jnp.asarray, (boxes, scores, valid, classes)))
    assert [kept(image) for image in zip(*jax.device_get((index, found)), strict=True)] == expected


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_equals_the_plain_form(threshold):
    names = ("boxes", "tied_scores", "classes")
    boxes, scores, classes = (np.asarray(REFERENCE[f"nms/{name}"])[:300] for name in names)
    valid = np.arange(300) % 7 > 0
    arrays, settings = (boxes, scores, valid), {"iou_threshold": threshold, "max_outputs": 100}
    reference = jax.jit(partial(plain.nms, **settings))(*arrays, classes=classes)
    for found, expected in zip(nms(*arrays, classes=classes, **settings), reference, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("eight_devices")
def test_batch_equals_its_images_without_communication():
    boxes, scores = (np.asarray(REFERENCE[f"nms/{k}"])[:480] for k in ("boxes", "tied_scores"))
    # Images with different numbers of boxes, so that their loops end at different steps.
    batch = (
        boxes.reshape(8, 60, 4),
        scores.reshape(8, 60),
        np.arange(60) < np.array([0, 1, 5, 60, 30, 60, 17, 59])[:, None],
    )

    def one(b, s, v):
        return nms(b, s, v, iou_threshold=0.5, max_outputs=20)

    mesh = jax.make_mesh((8, 1), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)
    mapped = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    compiled = jax.jit(mapped).lower(*batch).compile()
    assert "all-" not in compiled.as_text()
    single = jax.jit(one)
    for sharded, mapped_, expected in zip(
        zip(*jax.device_get(compiled(*batch)), strict=True),
        zip(*jax.device_get(jax.vmap(one)(*batch)), strict=True),
        map(single, *batch),
        strict=True,
    ):
        assert kept(sharded) == kept(mapped_) == kept(expected)
