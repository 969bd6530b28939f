"""The workloads and output of benchmarks/growth.py; nothing is asserted about the times."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

from mrcnn_jax.benchmarks.workloads import growth, models
from mrcnn_jax.ops.matching import Assignment


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("growth")


@pytest.fixture
def tiny_model(tiny_config, tiny_blueprint, monkeypatch):
    """Makes the workloads use the tiny model, with zero weights, which take no time to initialise."""
    weights = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tiny_blueprint.shapes())
    model = models.Model(tiny_config, tiny_blueprint, weights, image_size=(64, 64))
    monkeypatch.setattr(growth.models, "make_model", lambda config, *, choose_threshold: model)
    return model


@pytest.mark.parametrize(
    ("numbers", "seconds", "expected"),
    [
        ((10, 20), (0.5, 1.0), 1.0),
        ((10, 20), (0.5, 2.0), 2.0),
        ((1, 2, 4), (3.0, 3.0, 3.0), 0.0),
        ((1, 2, 4, 8), (7.9, 0.2, 0.4, 0.8), 1.0),  # uses only the last three
        ((1, 2, 4), (1.0, 2.0, 2.0), 0.5),  # the line nearest to (0, 0), (1, 1), (2, 1)
        ((512, 1024, 4096), (0.003, 0.003 * 2**1.5, 0.003 * 8**1.5), 1.5),
    ],
)
def test_the_exponent_is_the_slope_of_the_logarithms(numbers, seconds, expected):
    assert growth.exponent(numbers, seconds) == pytest.approx(expected)


def test_one_point_has_no_slope():
    assert growth.exponent((1,), (2.0,)) is None


def test_masks_beyond_the_hundredth_repeat():
    workloads = growth.paste_masks(None, (3, 103))
    few, many = workloads[3].run(), workloads[103].run()
    assert len(many) == 103 and len({str(mask) for mask in many}) == 100
    assert many[:3] == many[100:] == few


@pytest.mark.slow
def test_every_object_is_a_target(tiny_model, tiny_config):
    workloads = growth.assign_objects(tiny_config, (3,))
    anchor_targets, region_targets = workloads[3].run()
    assert anchor_targets.index.max() < 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)
    assert (anchor_targets.assignment == Assignment.POSITIVE).any()
    positive = region_targets.assignment == Assignment.POSITIVE
    assert set(region_targets.gt_index[positive].tolist()) == {0, 1, 2}


@pytest.mark.slow
def test_the_given_number_of_regions_is_classified(tiny_model, tiny_config, monkeypatch):
    monkeypatch.setattr(growth, "compiled", lambda function, *x: lambda: jax.eval_shape(function, *x))
    workloads = growth.pool_regions(tiny_config, (5, 9))
    logits, deltas = workloads[9].run()
    assert logits.shape == (1, 9, 4 + 1) and deltas.shape == (1, 9, 4, 4)


@pytest.mark.slow
def test_a_step_has_one_image_per_device(tiny_model, tiny_config, monkeypatch):
    steps = []

    def compile_step(blueprint, config, mesh):
        next_state = jax.jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)

        def step(state, batch):
            steps.append((config.train.batch_size, mesh.size, batch.images))
            return next_state(state), {}

        return step

    monkeypatch.setattr(models, "compile_step", compile_step)
    workloads = growth.train_on_devices(tiny_config, (1, 2, jax.device_count() + 1))
    assert list(workloads) == [1, 2]
    for workload in workloads.values():
        workload.run()
    for count, (batch_size, devices, images) in zip((1, 2), steps, strict=True):
        assert batch_size == devices == count
        assert [shard.data.shape[0] for shard in images.addressable_shards] == [1] * count


def test_an_unknown_measurement_is_an_error(start):
    result = start("benchmark", "growth", "--only=boxes,nonsense")
    assert result.returncode == 1
    assert f"error: --only=nonsense: unknown; choose from {', '.join(growth.WORKLOADS)}\n" in result.stderr


def test_writes_a_table_a_file_and_a_picture(start, tmp_path):
    path, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    result = start(
        "benchmark",
        "growth",
        "--only=masks,boxes",
        "--points=2",
        "--turns=1",
        f"--json={path}",
        f"--png={picture}",
    )
    assert result.returncode == 0, result.stderr
    written = json.loads(path.read_text())
    assert written["devices"] == jax.device_count()
    rows = written["growth"]
    assert rows["masks"]["numbers"] == [10, 25] and rows["boxes"]["numbers"] == [512, 1024]
    for row in rows.values():
        (first, last), (short, long) = row["numbers"], row["seconds"]
        assert row["exponent"] == pytest.approx(math.log(long / short) / math.log(last / first))
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[-5:-2] == [
        ["NMS"],
        ["boxes", "ms", "ms", "each"],
        ["512", *(f"{1000 * rows['boxes']['seconds'][0] / n:.4g}" for n in (1, 512))],
    ]
    assert lines[-1] == ["grows", "as", "number", "**", f"{rows['boxes']['exponent']:.2f}"]
    with Image.open(picture) as image:
        assert image.size == (960, 340)
