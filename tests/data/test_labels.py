import dataclasses

import numpy as np
import pytest

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.labels import AlignedSource, check_categories
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.runs.categories import Categories

# The categories of ``folder`` (car and dog), with unused labels before and between them.
RUN = Categories(
    ids=(1, 3, 5, 7),
    names=("N/A", "car", "N/A", "dog"),
    keypoint_labels=(4,),
    keypoint_names=("nose", "left_paw", "right_paw"),
    skeleton=((0, 1),),
    flip_pairs=((1, 2),),
    sigmas=(0.1, 0.1, 0.1),
)


@pytest.fixture
def dataset(folder):
    """A dog with keypoints and a car."""
    image = folder.add_image()
    folder.add_object(image)
    folder.add_object(image, category_id=3, keypoints=[])
    return read_coco(**folder.write())


def aligned_to(run, dataset):
    return AlignedSource(FolderSource(dataset, mask_grid=4), run)


def test_labels_become_those_of_the_run(dataset):
    assert [item.label for item in dataset.images[0].annotations] == [2, 1]
    aligned = aligned_to(RUN, dataset)
    dog, car = aligned.annotations(0)
    assert (dog.label, car.label) == (4, 2)
    assert dog.keypoints.tolist() == [[3, 2, 2], [6, 1, 1], [5, 5, 0]]
    assert dog.box == (2, 1, 10, 5)
    assert aligned.categories == dataclasses.replace(RUN, sigmas=())  # the dataset has none


def test_identical_categories_change_nothing(dataset):
    aligned = aligned_to(dataset.categories, dataset)
    assert aligned.categories == dataset.categories
    assert [item.label for item in aligned.annotations(0)] == [2, 1]


def test_keypoints_are_dropped_if_the_run_has_none(dataset):
    aligned = aligned_to(Categories(ids=RUN.ids, names=RUN.names), dataset)
    assert aligned.categories.keypoint_names == ()
    assert all(item.keypoints is None for item in aligned.annotations(0))


def test_keypoints_are_dropped_if_the_run_has_none_for_the_category(dataset):
    aligned = aligned_to(dataclasses.replace(RUN, keypoint_labels=(2,)), dataset)
    assert aligned.categories == Categories(ids=RUN.ids, names=RUN.names)
    assert aligned.annotations(0)[0].keypoints is None


def test_a_dataset_without_keypoints(dataset):
    bare = dataclasses.replace(dataset, categories=Categories(ids=(3, 7), names=("car", "dog")))
    assert aligned_to(RUN, bare).categories.keypoint_labels == ()


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        Categories(ids=RUN.ids, names=RUN.names),
        dataclasses.replace(RUN, keypoint_labels=(2,)),
    ],
)
def test_objects_are_aligned_as_annotations_are(dataset, run):
    found = aligned_to(run, dataset)
    images = [
        dataclasses.replace(image, annotations=found.annotations(index))
        for index, image in enumerate(dataset.images)
    ]
    aligned = dataclasses.replace(dataset, categories=found.categories, images=tuple(images))
    wanted = FolderSource(aligned, mask_grid=4)
    assert found.has_masks == wanted.has_masks
    for index in range(len(wanted.ids)):
        one, other = found.read(index).objects, wanted.read(index).objects
        for field in dataclasses.fields(other):
            value, expected = getattr(one, field.name), getattr(other, field.name)
            assert value.dtype == expected.dtype
            np.testing.assert_array_equal(value, expected, err_msg=field.name)
            np.testing.assert_array_equal(getattr(found.objects(index), field.name), expected)


def test_all_differences_are_reported(dataset):
    other = dataclasses.replace(
        RUN, ids=(1, 3, 5, 8), names=("N/A", "cat", "bird", "dog"), keypoint_names=("nose", "a", "b")
    )
    for check in (
        lambda: aligned_to(other, dataset),
        lambda: check_categories(dataset.categories, other, where=dataset.name),
    ):
        with pytest.raises(ValueError) as error:
            check()
        assert str(error.value).splitlines() == [
            f"{dataset.name}: its categories are not those that the run was trained on:",
            "  no category 5 ('bird'), which the run has",
            "  no category 8 ('dog'), which the run has",
            "  category 7 ('dog'), which the run does not have",
            "  category 3 is 'car', in the run 'cat'",
            "  keypoints nose, left_paw, right_paw, in the run nose, a, b",
        ]
