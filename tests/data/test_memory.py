"""Memory use of the data pipeline by tracemalloc, which sees NumPy's arrays but not TensorFlow's."""

import gc
import tracemalloc

import jax
import pytest

from mrcnn_jax.config import DataConfig
from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.pipeline import training_batches
from mrcnn_jax.data.records import RecordSource, prepare_records
from mrcnn_jax.data.source import FolderSource
from tests.scale.generate import ANNOTATIONS, IMAGES, KEYPOINTS, Counts, generate

GRID = 28


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    generate(root, Counts().scaled(0.0004), seed=0)
    return root


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_reading_takes_little_more_memory_than_the_files(small, traced):
    dataset = read_coco(small, images=IMAGES, annotations=ANNOTATIONS, keypoints=KEYPOINTS)
    now, peak = tracemalloc.get_traced_memory()
    size = sum((small / name).stat().st_size for name in (ANNOTATIONS, KEYPOINTS))
    assert dataset.images and now < 2 * size and peak < 3 * size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["records", "folder"])
def test_memory_does_not_grow_with_the_batches(small, tmp_path, traced, kind):
    dataset = read_coco(small, images=IMAGES, annotations=ANNOTATIONS, keypoints=KEYPOINTS)
    source = FolderSource(dataset, mask_grid=GRID)
    if kind == "records":
        folder, _ = prepare_records(dataset, tmp_path, mask_grid=GRID, num_workers=1)
        source = RecordSource(folder, mask_grid=GRID)
    data = DataConfig(
        train_short_sides=(48,), long_side=64, canvases=((64, 64),), max_objects=20, mask_grid=GRID
    )
    batches = training_batches(source, data, batch_size=2, seed=0, masks=True, keypoints=True)

    def held(count):
        """The bytes and objects allocated after ``count`` more batches, and the bytes of one batch."""
        for _ in range(count):
            batch = next(batches)
        gc.collect()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
        return tracemalloc.get_traced_memory()[0], len(gc.get_objects()), size

    held(40)  # more than one pass
    before, objects_before, size = held(1)
    after, objects_after, _ = held(100)
    # Examples in the making come and go: at most one per core of the machine.
    assert after - before < 100 * size
    assert objects_after - objects_before < 100
