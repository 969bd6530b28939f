import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.ops import masks as masks_module

crop_box_masks = jax.jit(masks_module.crop_box_masks, static_argnames="size")
label_margins = jax.jit(masks_module.label_margins)
label_log_probabilities = jax.jit(masks_module.label_log_probabilities)


def crop(mask, mask_box, roi, size):
    arrays = (jnp.asarray([a]) for a in (mask, mask_box, roi))
    return np.asarray(crop_box_masks(*arrays, size=size))[0]


def test_by_hand():
    # A 2 x 2 mask over a 4 x 4 box: its cell centres are at 1 and 3 pixels.
    mask = [[0, 1], [0, 1]]
    # Region cells of 1 pixel have centres at .5 (before the mask's first centre: its value), 1.5 and 2.5 (in
    # between), and 3.5 (after the last).
    box = [0.0, 0, 4, 4]
    np.testing.assert_allclose(crop(mask, box, box, 4), [[0, 0.25, 0.75, 1]] * 4, atol=1e-6)
    # Cells of 2 pixels: one inside the box, three beyond its right edge.
    expected = [[1, 0, 0, 0]] * 2 + [[0, 0, 0, 0]] * 2
    np.testing.assert_allclose(crop(mask, box, [2.0, 0, 10, 8], 4), expected, atol=1e-6)


def test_cropping_to_its_own_box_gives_the_mask_itself():
    mask = np.random.default_rng(0).integers(0, 2, (7, 7)).astype(np.uint8)
    box = [3.25, 10.5, 40.75, 19.0]
    np.testing.assert_allclose(crop(mask, box, box, 7), mask, atol=1e-5)


def test_rows_run_down_and_columns_to_the_right():
    mask = np.zeros((8, 8), np.uint8)
    mask[:2, 5:] = 1  # the upper right
    cropped = crop(mask, [0.0, 0, 80, 40], [40.0, 0, 80, 20], 4)
    np.testing.assert_array_equal(cropped >= 0.5, [[False, True, True, True]] * 2 + [[False] * 4] * 2)


def test_a_disc_stays_a_disc_in_any_region():
    y, x = np.mgrid[:112, :112] + 0.5
    disc = ((x - 56) ** 2 + (y - 56) ** 2 <= 56**2).astype(np.uint8)  # centre (50, 50), radius 30
    roi = np.array([35.0, 10, 95, 70])
    cropped = crop(disc, [20.0, 20, 80, 80], roi, 28)
    cy, cx = ((np.mgrid[:28, :28] + 0.5) / 28 * 60) + roi[[1, 0]][:, None, None]
    distance = np.hypot(cx - 50, cy - 50)
    clear = np.abs(distance - 30) > 0.8  # pixels; a cell of the grid is 0.54
    np.testing.assert_array_equal((cropped >= 0.5)[clear], (distance <= 30)[clear])


def test_degenerate_boxes_are_finite():
    masks = jnp.ones((3, 4, 4), jnp.uint8)
    boxes = jnp.array([[0.0, 0, 4, 4], [2, 2, 2, 2], [4, 4, 0, 0]])
    rois = jnp.array([[1.0, 1, 1, 1], [0, 0, 4, 4], [0, 0, 4, 4]])
    cropped = np.asarray(crop_box_masks(masks, boxes, rois, size=3))
    np.testing.assert_array_equal(cropped, [np.ones((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))])


def test_batch_equals_its_images():
    rng = np.random.default_rng(0)
    masks = jnp.asarray(rng.integers(0, 2, (2, 3, 6, 6)), jnp.uint8)
    corners = np.sort(rng.uniform(0, 30, (2, 2, 3, 2, 2)), axis=-2)
    boxes, rois = jnp.asarray(corners.reshape(2, 2, 3, 4), jnp.float32)
    mapped = jax.vmap(lambda *a: crop_box_masks(*a, size=5))(masks, boxes, rois)
    for i in range(2):
        np.testing.assert_allclose(mapped[i], crop_box_masks(masks[i], boxes[i], rois[i], size=5), atol=1e-6)


# Two regions of two cells, with probabilities of the background and two categories.
PROBABILITIES = np.array(
    [[[0.35, 0.4, 0.25], [0.5, 0.3, 0.2]], [[0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]], np.float32
)


def test_margins_by_hand():
    margins = label_margins(np.log(PROBABILITIES) + 3, np.array([1, 2]))
    expected = [[0.4 / 0.35, 0.3 / 0.5], [0.2 / 0.6, 0.8 / 0.1]]
    np.testing.assert_allclose(margins, np.log(expected), rtol=1e-5)


def test_log_probabilities_by_hand():
    found = label_log_probabilities(np.log(PROBABILITIES) + 3, np.array([1, 2]))
    np.testing.assert_allclose(np.exp(found[..., 0]), [[0.4, 0.3], [0.2, 0.8]], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found[..., 1]), [[0.35, 0.5], [0.2, 0.1]], rtol=1e-5)


def test_margins_are_positive_where_the_label_is_the_predicted_class():
    """Also where its own probability is less than one half."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 9, 9, 5)).astype(np.float32)
    labels = np.arange(6) % 5
    wins = logits.argmax(axis=-1) == labels[:, None, None]
    np.testing.assert_array_equal(label_margins(logits, labels) >= 0, wins)
    probable = np.exp(label_log_probabilities(logits, labels)[..., 0]) >= 0.5
    assert 0 < probable.sum() < wins.sum() and not np.any(probable & ~wins)


def test_log_probabilities_of_large_logits_are_finite():
    logits = np.array([[[1000.0, -1000, 0]]], np.float32)
    found = label_log_probabilities(logits, np.array([1]))
    np.testing.assert_array_equal(found, [[[-2000, 0]]])
