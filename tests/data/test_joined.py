"""Training on several data sets at once."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.config.io import from_dict, validate
from mrcnn_jax.config.paths import check_data_paths
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.joined import JoinedSource, data_sets
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.pipeline import plan_batches, training_batches
from mrcnn_jax.data.records import prepare_records
from mrcnn_jax.data.selection import describe_selection
from mrcnn_jax.data.summary import summarise

POINTS = ["nose", "left_paw", "right_paw"]
DOG, CAR = {"id": 7, "name": "dog", "keypoints": POINTS}, {"id": 3, "name": "car"}


def write(root, name, *, count, category=7, categories=(DOG, CAR), first_id=1, colour=100):
    """A data set of ``count`` images of 20 x 10 pixels with an object each."""
    (root / name).mkdir()
    images, annotations = [], []
    for index in range(count):
        Image.new("RGB", (20, 10), (colour, index, 0)).save(root / name / f"{index}.png")
        key = first_id + index
        images.append({"id": key, "file_name": f"{index}.png", "height": 10, "width": 20})
        annotations.append(
            {
                "id": index + 1,
                "image_id": key,
                "category_id": category,
                "bbox": [2, 1, 8, 4],
                "area": 16,
                "iscrowd": 0,
                "segmentation": [[2, 1, 10, 1, 2, 5]],
                **({"keypoints": [3, 2, 2, 6, 1, 1, 0, 0, 0]} if category == 7 else {}),
            }
        )
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    (root / f"{name}.json").write_text(json.dumps(content))


def config_of(root, *names, **changes):
    """Settings to train on these data sets at their original size."""
    first, *more = names
    settings = {
        "train_images": first,
        "train_annotations": f"{first}.json",
        "more_train_images": tuple(more),
        "more_train_annotations": tuple(f"{name}.json" for name in more),
        "train_short_sides": (10,),
        "long_side": 20,
        "canvases": ((32, 32),),
        "mask_grid": 8,
        "max_objects": 3,
    }
    data = DataConfig(root=str(root), **settings | changes)
    return Config(model=ModelConfig(keypoint=True), data=data)


def batches(config, source=None, **changes):
    options = {"batch_size": 8, "seed": 0, "masks": True, "keypoints": True} | changes
    return training_batches(source or open_data_source(config), config.data, **options)


def assert_equal(found, wanted):
    for value, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.fixture
def two(tmp_path):
    """20 labelled images of dogs, and 5 others of cars."""
    write(tmp_path, "labelled", count=20)
    write(tmp_path, "other", count=5, category=3, categories=(CAR, DOG), first_id=101, colour=200)
    return tmp_path


def test_images_objects_and_labels(two):
    source = open_data_source(config_of(two, "labelled", "other"))
    parts = [open_data_source(config_of(two, name)) for name in ("labelled", "other")]
    assert isinstance(source, JoinedSource)
    assert data_sets(source) == ((parts[0].name, 20), (parts[1].name, 5))
    assert data_sets(AlignedSource(source, source.categories)) == data_sets(source)
    assert data_sets(parts[1]) == ((parts[1].name, 5),)
    assert source.categories == parts[0].categories and source.categories.names == ("car", "dog")
    assert source.ids.tolist() == [*range(1, 21), *range(101, 106)]
    assert source.counts.tolist() == [[5, 0], [20, 0]]
    assert source.visible_keypoints.tolist() == [2] * 20 + [0] * 5
    assert source.image_labels.tolist() == [[i, 2] for i in range(20)] + [[i, 1] for i in range(20, 25)]
    for index, part, inner, label in ((0, 0, 0, 2), (19, 0, 19, 2), (20, 1, 0, 1), (24, 1, 4, 1)):
        found, wanted = source.read(index), parts[part].read(inner)
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
        assert found.objects.labels.tolist() == source.objects(index).labels.tolist() == [label]
        assert [item.label for item in source.annotations(index)] == [label]
        np.testing.assert_array_equal(found.objects.boxes, wanted.objects.boxes)


def test_labels_of_categories_in_another_order(two):
    first, other = (open_data_source(config_of(two, name)) for name in ("labelled", "other"))
    categories = dataclasses.replace(other.categories, ids=(7, 3), names=("dog", "car"), keypoint_labels=(1,))
    reordered = AlignedSource(other, categories)
    assert reordered.objects(0).labels.tolist() == [2]
    source = JoinedSource([first, reordered])
    assert source.objects(20).labels.tolist() == [1] and source.counts.tolist() == [[5, 0], [20, 0]]


def test_image_ids_that_occur_twice_are_numbered(two):
    write(two, "again", count=3)
    source = open_data_source(config_of(two, "labelled", "again"))
    assert source.ids.tolist() == list(range(1, 24))


def test_shares_of_the_batches(two):
    config = config_of(two, "labelled", "other", train_shares=(0.6, 0.4))
    validate(config)
    iterator = batches(config, batch_size=10)
    for _ in range(20):
        labels = next(iterator).gt.labels[:, 0]
        assert np.bincount(labels, minlength=3).tolist() == [0, 4, 6]
    # Without shares, by their numbers of images.
    labels = [label for _, batch in zip(range(25), batches(config_of(two, "labelled", "other")), strict=False)
              for label in batch.gt.labels[:, 0].tolist()]  # fmt: skip
    assert np.bincount(labels).tolist() == [0, 8 * 5, 8 * 20]


def test_resuming_hosts_and_records_give_the_same_batches(two):
    config = config_of(two, "labelled", "other", train_shares=(1.0, 2.0))
    iterator = batches(config)
    wanted = [next(iterator) for _ in range(5)]
    resumed = batches(config, start_step=3)
    for batch in wanted[3:]:
        assert_equal(next(resumed), batch)
    parts = [next(batches(config, process_index=index, process_count=2)) for index in (0, 1)]
    assert_equal(jax.tree.map(lambda *rows: np.concatenate(rows), *parts), wanted[0])

    dataset = read_coco(two, images="other", annotations="other.json")
    path, _ = prepare_records(dataset, two / "records", mask_grid=8, num_workers=1)
    records = dataclasses.replace(config.data, more_train_records=(str(path.relative_to(two)),))
    found = batches(dataclasses.replace(config, data=records))
    for batch in wanted:
        assert_equal(next(found), batch)


def test_what_is_said_at_the_start(two):
    config = config_of(two, "labelled", "other", train_shares=(3.0, 1.0))
    source = open_data_source(config)
    lines = describe_selection(source, config.data, keypoints=False)
    assert lines == [
        f"75.0% of the training images are from {two}/labelled.json (20 images)",
        f"25.0% of the training images are from {two}/other.json (5 images)",
    ]
    config.data.train_shares = ()
    assert describe_selection(source, config.data, keypoints=False)[0].startswith("80.0% of the training")
    assert describe_selection(open_data_source(config_of(two, "other")), config.data, keypoints=False) == [
        "categories without an object to learn from (none): dog"
    ]


def test_the_canvases_of_a_summary_are_weighted(two):
    write(two, "tall", count=5)
    for path in (two / "tall").iterdir():
        Image.new("RGB", (10, 20)).save(path)
    content = json.loads((two / "tall.json").read_text())
    for image in content["images"]:
        image["height"], image["width"] = 20, 10
    (two / "tall.json").write_text(json.dumps(content))
    config = config_of(two, "labelled", "tall", canvases=((10, 20), (20, 10)))
    source = open_data_source(config)
    for given, shares in (((), (0.8, 0.2)), ((1.0, 1.0), (0.5, 0.5)), ((1.0, 3.0), (0.25, 0.75))):
        config.data.train_shares = given
        summary = summarise(source, config.data, keypoints=False)
        assert (summary.canvases[10, 20], summary.canvases[20, 10]) == pytest.approx(shares)
        order, _, canvases = plan_batches(source, config.data, batch_size=2, seed=0, keypoints=False)
        on_tall = np.mean([canvases[order.batch(step)[0]] == (20, 10) for step in range(400)])
        assert on_tall == pytest.approx(shares[1], abs=1 / 400)


def test_categories_must_be_the_same(two):
    cat = {"id": 9, "name": "cat"}
    write(two, "cats", count=1, categories=({"id": 7, "name": "hound"}, CAR, cat))
    with pytest.raises(ValueError) as error:
        open_data_source(config_of(two, "labelled", "cats"))
    assert str(error.value).splitlines() == [
        "data sets that are trained on together must have the same categories:",
        f"  category 7 is 'hound' in {two}/cats.json, 'dog' in {two}/labelled.json",
        f"  category 9 is 'cat' in {two}/cats.json, None in {two}/labelled.json",
        f"  keypoints are none in {two}/cats.json, {', '.join(POINTS)} in {two}/labelled.json",
    ]


def test_every_set_with_a_weight_needs_an_image(two):
    config = config_of(two, "labelled", "other", train_shares=(1.0, 1.0), min_keypoints=1)
    source = open_data_source(config)
    with pytest.raises(
        ValueError, match=r"other\.json: none of its images is trained on, but it has a share"
    ):
        plan_batches(source, config.data, batch_size=2, seed=0, keypoints=True)
    assert describe_selection(source, config.data, keypoints=True)[1].startswith(
        "0.0% of the training images"
    )
    config.data.train_shares = ()
    _, kept, _ = plan_batches(source, config.data, batch_size=2, seed=0, keypoints=True)
    assert kept.tolist() == list(range(20))
    config = config_of(two, "labelled", train_shares=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"must have one for each of the 1 data sets"):
        plan_batches(open_data_source(config), config.data, batch_size=2, seed=0, keypoints=True)


def test_settings_that_do_not_fit_together(two):
    data = {
        "more_train_images": ["other", "third"],
        "more_train_annotations": ["other.json"],
        "more_train_records": ["a", "b"],
        "train_shares": [1.0],
    }
    with pytest.raises(ValueError) as error:
        validate(from_dict({"data": data}))
    assert str(error.value).splitlines() == [
        "data.more_train_images is ('other', 'third'); must have one for each of "
        "data.more_train_annotations, which is ('other.json',)",
        "data.more_train_records is ('a', 'b'); must have one for each of data.more_train_annotations, "
        "which is ('other.json',)",
        "data.train_shares is (1.0,); must be empty or have 2: one for data.train_annotations and for each "
        "of data.more_train_annotations",
    ]
    with pytest.raises(ValueError, match="must not have an empty item"):
        validate(from_dict({"data": {"more_train_images": [""], "more_train_annotations": ["a.json"]}}))
    with pytest.raises(ValueError, match="must be positive"):
        validate(from_dict({"data": {"train_shares": [0.0]}}))


def test_paths_that_do_not_exist(two):
    check_data_paths(config_of(two, "labelled", "other"), "train")
    config = config_of(two, "labelled", "other", "none", "gone", more_train_records=("", "", "made"))
    with pytest.raises(ValueError) as error:
        check_data_paths(config, "train")
    assert str(error.value).splitlines() == [
        f"{two}/none: there is no such folder (data.more_train_images)",
        f"{two}/none.json: there is no such file (data.more_train_annotations)",
        f"{two}/made: there is no such folder (data.more_train_records)",
    ]
