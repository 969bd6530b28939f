import numpy as np
import pytest

from mrcnn_jax.weights.layouts import (
    background_last,
    conv,
    deconv,
    linear,
    linear_after_flatten,
    plain,
    read_model,
    with_background,
    write_model,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_convolution_by_hand():
    layout = conv("w", (3, 4, 5, 6))  # rows columns in out
    assert layout.shape == (6, 5, 3, 4)
    theirs = np.arange(360).reshape(6, 5, 3, 4)
    assert layout.read(theirs)[2, 3, 4, 5] == theirs[5, 4, 2, 3]


def test_a_deconvolution_by_hand():
    layout = deconv("w", (2, 3, 5, 6))
    assert layout.shape == (5, 6, 2, 3)
    theirs = np.arange(180).reshape(5, 6, 2, 3)
    assert layout.read(theirs)[1, 2, 4, 5] == theirs[4, 5, 1, 2]


def test_a_linear_layer_after_flatten_gives_the_same_values(rng):
    maps = rng.normal(size=(2, 3, 3, 4))  # regions rows columns channels
    theirs = rng.normal(size=(5, 36))
    ours = linear_after_flatten("w", (36, 5), channels=4).read(theirs)
    wanted = maps.transpose(0, 3, 1, 2).reshape(2, -1) @ theirs.T
    np.testing.assert_allclose(maps.reshape(2, -1) @ ours, wanted)


def test_background_rows_are_dropped_and_written_as_zeros():
    layout = with_background(linear("w", (2, 3)), 1)
    assert layout.shape == (4, 2)
    theirs = np.array([[9, 9], [1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(layout.read(theirs), [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(layout.write(layout.read(theirs)), [[0, 0], [1, 2], [3, 4], [5, 6]])
    bias = with_background(plain("b", (2,)), 1)
    np.testing.assert_array_equal(bias.write(np.array([1, 2])), [0, 1, 2])


def test_the_background_moves_from_last_to_first():
    layout = background_last(plain("b", (3,)))
    np.testing.assert_array_equal(layout.read(np.array([1, 2, 0])), [0, 1, 2])
    np.testing.assert_array_equal(layout.write(np.array([0, 1, 2])), [1, 2, 0])


@pytest.mark.parametrize(
    "layout",
    [
        plain("a", (4,)),
        conv("a", (3, 3, 2, 5)),
        deconv("a", (2, 2, 3, 4)),
        linear("a", (3, 4)),
        linear_after_flatten("a", (2 * 2 * 3, 4), channels=3),
        background_last(linear("a", (3, 4))),
    ],
)
def test_writing_undoes_reading(layout, rng):
    theirs = rng.normal(size=layout.shape)
    np.testing.assert_array_equal(layout.write(layout.read(theirs)), theirs)


def test_models_by_name(rng):
    layouts = {"ours": linear("theirs", (2, 3))}
    arrays = {"theirs": rng.normal(size=(3, 2))}
    ours = read_model(arrays, layouts, source="file")
    assert ours["ours"].shape == (2, 3) and ours["ours"].flags.c_contiguous
    np.testing.assert_array_equal(write_model(ours, layouts)["theirs"], arrays["theirs"])


def test_all_mismatches_at_once_with_their_names():
    layouts = {"a": plain("x.a", (2,)), "b": plain("x.b", (2,)), "c": plain("x.c", (2,))}
    with pytest.raises(ValueError) as error:
        read_model({"x.a": np.zeros(3), "x.b": np.zeros(2), "x.d": np.zeros(2)}, layouts, source="w.npz")
    message = str(error.value)
    for part in ("w.npz", "1 missing: x.c", "1 unexpected: x.d", "x.a is (3,), must be (2,)"):
        assert part in message
