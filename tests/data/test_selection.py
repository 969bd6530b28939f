import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.config import Config, DataConfig, ModelConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.labels import AlignedSource
from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
from mrcnn_jax.data.pipeline import plan_batches
from mrcnn_jax.data.records import RecordSource, prepare_records
from mrcnn_jax.data.selection import describe_selection, trained_images
from mrcnn_jax.data.source import FolderSource
from mrcnn_jax.data.summary import summarise
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.weights.zoo_models import named_config

GRID = 8
VISIBLE = [1, 1, 2]
BRUSH = {"size": [10, 20], "counts": [21, 4, 6, 4, 6, 4, 6, 4, 145]}  # a square of four pixels at (2, 1)


def dataset_of(folder):
    """Five images with 3, 2, 2 (one of them in a crowd), 0 and no visible keypoints; 2 to 0 are dogs."""
    first, second, third, fourth, _ = (folder.add_image() for _ in range(5))
    folder.add_object(first, keypoints=VISIBLE * 3)
    for _ in range(2):
        folder.add_object(second, keypoints=[*VISIBLE, 0, 0, 0, 0, 0, 0])
    folder.add_object(third, keypoints=[*VISIBLE, 0, 0, 0, 0, 0, 0])
    folder.add_object(third, keypoints=[*VISIBLE, 0, 0, 0, 0, 0, 0], iscrowd=1, segmentation=BRUSH)
    folder.add_object(fourth, keypoints=[0] * 9)
    return read_coco(**folder.write())


@pytest.fixture
def sources(folder):
    """The same dataset as a folder and as records."""
    dataset = dataset_of(folder)
    path, _ = prepare_records(dataset, folder.root / "records", mask_grid=GRID, num_workers=1)
    return FolderSource(dataset, mask_grid=GRID), RecordSource(path)


def test_images_with_few_keypoints_are_not_trained_on(sources):
    for source in sources:
        assert source.visible_keypoints.tolist() == [3, 2, 2, 0, 0]
        for least, keep_empty, wanted in (
            (0, False, [1, 1, 1, 1, 0]),
            (0, True, [1, 1, 1, 1, 1]),
            (1, False, [1, 1, 1, 0, 0]),
            (1, True, [1, 1, 1, 0, 0]),
            (3, False, [1, 0, 0, 0, 0]),
        ):
            config = DataConfig(min_keypoints=least, keep_empty=keep_empty)
            assert trained_images(source, config, keypoints=True).tolist() == wanted
            assert summarise(source, config, keypoints=True).trained == sum(wanted)
            _, kept, _ = plan_batches(source, config, batch_size=1, seed=0, keypoints=True)
            assert kept.tolist() == np.flatnonzero(wanted).tolist()
            assert trained_images(source, config, keypoints=False).tolist() == wanted
            assert describe_selection(source, config, keypoints=False) == describe_selection(
                source, config, keypoints=True
            )


def test_a_model_without_keypoints_ignores_the_rule_where_there_are_none(folder):
    folder.add_object(folder.add_image(), keypoints=[0] * 9)
    folder.add_image()
    source = FolderSource(read_coco(**folder.write()), mask_grid=GRID)
    config = DataConfig(min_keypoints=1)
    assert trained_images(source, config, keypoints=True).tolist() == [False, False]
    assert trained_images(source, config, keypoints=False).tolist() == [True, False]


def test_folders_count_keypoints_for_a_model_without(folder):
    dataset_of(folder)
    data = DataConfig(
        root=str(folder.root), train_images="images", train_annotations="instances.json", min_keypoints=3
    )
    for keypoint in (False, True):
        source = open_data_source(Config(data=data, model=ModelConfig(keypoint=keypoint)))
        assert trained_images(source, data, keypoints=keypoint).tolist() == [True, *[False] * 4]
        with pytest.raises(
            ValueError, match=r"none of its 5 images has the 4 visible keypoints of data\.min"
        ):
            few = dataclasses.replace(data, min_keypoints=4)
            plan_batches(source, few, batch_size=1, seed=0, keypoints=keypoint)


def test_no_image_with_enough_keypoints_is_an_error(sources):
    with pytest.raises(
        ValueError, match=r"none of its 5 images has the 4 visible keypoints of data\.min_key"
    ):
        plan_batches(sources[0], DataConfig(min_keypoints=4), batch_size=1, seed=0, keypoints=True)


def test_keypoint_models_have_the_rules_of_the_two_systems():
    for name, least in (
        ("torchvision/keypoint_rcnn_r50_fpn", 10),
        ("torchvision/mask_rcnn_r50_fpn", 0),
        ("detectron2/keypoint_rcnn_r50_fpn_3x", 1),
        ("detectron2/mask_rcnn_r50_fpn_3x", 0),
        ("paper/table5_faster", 1),
        ("paper/table5_keypoints", 1),
    ):
        assert named_config(name).data.min_keypoints == least


def test_old_records_have_no_counts(sources):
    _, records = sources
    path = f"{records.name}/index.npz"
    with np.load(path) as archive:
        index = {name: archive[name] for name in archive if name not in ("counts", "visible_keypoints")}
    np.savez(path, **index)
    old = RecordSource(Path(records.name))
    assert old.counts is None and old.visible_keypoints is None
    assert trained_images(old, DataConfig(), keypoints=True).sum() == 4
    assert describe_selection(old, DataConfig(), keypoints=True) == []
    for keypoints in (False, True):
        with pytest.raises(ValueError, match=r"1\.0\.0: these records were made before .*min_keypoints to 0"):
            trained_images(old, DataConfig(min_keypoints=1), keypoints=keypoints)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"counts": np.zeros((3, 2), np.int64)},
            r"index\.npz does not count the objects of categories\.json",
        ),
        ({"visible_keypoints": np.zeros(4, np.int32)}, r"index\.npz has 4 visible_keypoints for 5 ids"),
    ],
)
def test_counts_of_other_records_are_an_error(sources, changes, message):
    path = Path(sources[1].name) / "index.npz"
    with np.load(path) as archive:
        index = dict(archive)
    np.savez(path, **index | changes)
    with pytest.raises(ValueError, match=message):
        RecordSource(path.parent)


def test_what_is_said_at_the_start(folder):
    image = folder.add_image()
    for _ in range(3):
        folder.add_object(image, keypoints=[*VISIBLE, 0, 0, 0, 0, 0, 0])
    folder.add_object(image, keypoints=[], category_id=3, iscrowd=1, segmentation=BRUSH)
    folder.add_object(folder.add_image(), keypoints=[0] * 9)
    folder.content["categories"] = [*folder.content["categories"], {"id": 1, "name": "root\n"}]
    source = FolderSource(read_coco(**folder.write()), mask_grid=GRID)
    assert source.counts.tolist() == [[0, 0], [0, 1], [4, 0]]
    config = DataConfig(max_objects=3, min_keypoints=1)
    assert describe_selection(source, config, keypoints=True) == [
        "1 image has more than 3 objects (data.max_objects): the smallest are ignored, neither learnt nor "
        "background; one has 4",
        "1 image has fewer than 1 visible keypoints (data.min_keypoints) and are left out",
        "1 of 5 objects are crowds, which are ignored; data.crowds_are_objects trains on them as objects",
        "categories without an object to learn from (crowds only): car",
        "categories without an object to learn from (none): root\\n",
    ]
    run = Categories(ids=(1, 2, 3, 7), names=("root\n", "N/A", "car", "dog"))
    assert AlignedSource(source, run).counts.tolist() == [[0, 0], [0, 0], [0, 1], [4, 0]]


def test_nothing_is_said_of_ordinary_data(folder):
    image = folder.add_image()
    folder.add_object(image)
    folder.add_object(image, category_id=3, keypoints=[])
    source = FolderSource(read_coco(**folder.write()), mask_grid=GRID)
    assert describe_selection(source, DataConfig(), keypoints=True) == []


def test_crowds_are_objects_in_folders_and_records(folder):
    folder.add_object(folder.add_image(), iscrowd=1, bbox=[2, 1, 4, 4], segmentation=BRUSH)
    arguments = folder.write()
    data = DataConfig(
        root=str(folder.root), train_images="images", train_annotations="instances.json", val_images="images",
        val_annotations="instances.json", mask_grid=GRID, crowds_are_objects=True,
    )  # fmt: skip
    config = Config(data=data, model=ModelConfig(keypoint=True))
    files = open_data_source(config)
    assert files.learnable.all() and files.has_masks and files.counts.tolist() == [[0, 0], [1, 0]]
    assert np.unpackbits(files.objects(0).masks).all() and not files.objects(0).crowd.any()
    assert not open_validation_source(config).annotations(0)[0].crowd

    for flag in (False, True):
        dataset = read_coco(**arguments, crowds_are_objects=flag)
        path, _ = prepare_records(dataset, folder.root / str(flag), mask_grid=GRID, num_workers=1)
        data.train_records = data.val_records = str(path.relative_to(folder.root))
        if flag:
            records = open_data_source(config)
            np.testing.assert_array_equal(records.objects(0).masks, files.objects(0).masks)
            assert records.learnable.all() and not open_validation_source(config).annotations(0)[0].crowd
        else:
            for open_source in (open_data_source, open_validation_source):
                with pytest.raises(ValueError, match=r"remake them with mrcnn-jax prepare --crowds_are_obj"):
                    open_source(config)


def test_an_empty_validation_set_is_an_error(folder):
    folder.write()
    data = DataConfig(root=str(folder.root), val_images="images", val_annotations="instances.json")
    with pytest.raises(ValueError, match=r"instances\.json: has no images to evaluate on \(data\.val_annota"):
        open_validation_source(Config(data=data))


def test_keypoints_are_read_only_for_a_model_that_has_them(folder):
    folder.content["categories"] = [
        {**category, "keypoints": ["a", "a"]} for category in folder.content["categories"]
    ]
    folder.add_object(folder.add_image())
    folder.write()
    data = DataConfig(
        root=str(folder.root), train_images="images", train_annotations="instances.json", val_images="images",
        val_annotations="instances.json",
    )  # fmt: skip
    for open_source in (open_data_source, open_validation_source):
        source = open_source(Config(data=data))
        assert source.findings == () and source.categories.keypoint_names == ()
        with pytest.raises(ValueError, match="keypoints must be a list of distinct names"):
            open_source(Config(data=data, model=ModelConfig(keypoint=True)))
