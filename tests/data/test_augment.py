from mrcnn_jax.data.augment import draw_augmentation


def draw(seed, example, flip=True):
    return draw_augmentation(seed, example, short_sides=(640, 800), flip=flip)


def test_a_function_of_seed_and_example():
    assert [draw(1, example) for example in range(20)] == [draw(1, example) for example in range(20)]
    assert [draw(1, example) for example in range(20)] != [draw(2, example) for example in range(20)]


def test_sides_and_mirrors_are_even_and_independent():
    draws = [draw(0, example) for example in range(400)]
    for side in (640, 800):
        for flip in (False, True):
            assert 70 < sum(one.short_side == side and one.flip == flip for one in draws) < 130


def test_without_flip_the_sides_stay_the_same():
    for example in range(20):
        plain = draw(0, example, flip=False)
        assert not plain.flip and plain.short_side == draw(0, example).short_side
