"""Devices that share an image: the same results, from a share of the rows and regions each."""

import dataclasses
import functools
import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.distributed import sharding
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated, share_of_batch
from mrcnn_jax.distributed.spatial import (
    collect_regions,
    copy_maps,
    flatten_regions,
    map_regions,
    share_regions,
    unflatten_regions,
)
from mrcnn_jax.inference.detector import make_predict_fn
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.training.step import compile_step, make_state
from mrcnn_jax.types import Batch, GroundTruth

HEIGHT = 256  # pixels: two rows of p5 for each of four devices


def mesh_of(shape):
    groups, shared_by = shape
    return make_mesh(jax.devices()[: groups * shared_by], spatial_devices=shared_by)


def collectives(compiled):
    """The shapes of the results of every kind of collective in a compiled program."""
    found = {}
    pattern = r"= (.*) ((?:all-|collective-|reduce-scatter|ragged-)[\w-]*)\("
    for shapes, kind in re.findall(pattern, compiled.as_text()):
        found.setdefault(kind, []).extend(
            tuple(map(int, filter(None, dims.split(",")))) for dims in re.findall(r"\w+\[([\d,]*)\]", shapes)
        )
    return found


def test_five_regions_for_two_devices():
    regions = np.array([[[1], [2], [3], [4], [5]]], np.float32)
    with jax.set_mesh(mesh_of((1, 2))):
        shared = jax.jit(share_regions)(regions)
        collected = jax.jit(partial(collect_regions, count=5))(shared)
    np.testing.assert_array_equal(shared[0, :, 0], [1, 3, 5, 2, 4, 0])
    np.testing.assert_array_equal(collected, regions)


def test_regions_are_flattened_without_moving_them():
    def flatten_and_back(regions):
        rows = flatten_regions(regions)
        return rows, unflatten_regions(rows, len(regions))

    mesh = mesh_of((2, 4))
    by_row = batch_sharding(mesh).images
    regions = np.arange(4 * 8 * 3).reshape(4, 8, 3)
    with jax.set_mesh(mesh):
        compiled = jax.jit(flatten_and_back, in_shardings=by_row).lower(regions).compile()
        rows, back = compiled(jax.device_put(regions, by_row))
    assert not collectives(compiled)
    assert {shard.data.shape for shard in rows.addressable_shards} == {(4, 3)}
    assert sorted(rows[:, 0].tolist()) == sorted(regions[..., 0].ravel().tolist())
    np.testing.assert_array_equal(back, regions)


def test_maps_are_gathered_once_and_their_gradients_added_up_once():
    def loss(maps, first, second):
        def pool(_, maps, boxes):
            return boxes * jnp.sum(maps)

        copies = copy_maps(maps)
        pooled = (map_regions(pool, None, copies, share_regions(boxes)) for boxes in (first, second))
        return sum(jnp.sum(regions) for regions in pooled)

    mesh = mesh_of((2, 4))
    by_row, by_image = batch_sharding(mesh).images, batch_sharding(mesh).image_sizes
    maps = np.random.default_rng(0).normal(size=(2, 8, 3, 5)).astype(np.float32)
    first, second = np.arange(2 * 6, dtype=np.float32).reshape(2, 6), np.ones((2, 5), np.float32)
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(loss), in_shardings=(by_row, by_image, by_image))
        compiled = gradient.lower(maps, first, second).compile()
        found = compiled(*jax.device_put((maps, first, second), (by_row, by_image, by_image)))
    assert np.unique(found[0]) == 15 + 5 and np.unique(found[1]) == 51 + 5
    assert collectives(compiled) == {"reduce-scatter": [(1, 2, 3, 5)]}  # of a gradient, no map is needed


def test_without_a_mesh_nothing_changes():
    regions, maps = jnp.arange(6.0).reshape(1, 3, 2), jnp.ones((1, 4, 4, 2))
    assert share_regions(regions) is collect_regions(regions, 3) is regions and copy_maps(maps) is maps
    np.testing.assert_array_equal(unflatten_regions(flatten_regions(regions), 1), regions)
    found = map_regions(lambda size, maps, boxes: size * maps.sum() * boxes, np.array([2.0]), maps, regions)
    np.testing.assert_array_equal(found, 64 * regions)


def test_the_mesh_of_groups_of_devices():
    devices = jax.devices()
    mesh = make_mesh(spatial_devices=4)
    assert mesh.shape == {"data": 2, "spatial": 4}
    assert mesh.devices.tolist() == [devices[:4], devices[4:]]
    assert make_mesh().shape == make_mesh(spatial_devices=1).shape == {"data": 8, "spatial": 1}


def devices_of_processes(*processes):
    """Stand-ins for devices of several processes, of which only these numbers are read."""
    return [SimpleNamespace(process_index=process) for process in processes]


@pytest.mark.parametrize("processes", [(0, 1, 1, 0), (1, 1, 0, 0)])
@pytest.mark.parametrize("shared_by", [2, 4])
def test_devices_of_an_image_are_of_few_processes(processes, shared_by):
    mesh = sharding._by_image(devices_of_processes(*processes), shared_by)
    assert mesh.shape == (4 // shared_by, shared_by)
    assert [device.process_index for device in mesh.ravel()] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("processes", "shared_by", "counts"),
    [
        ((0,) * 8, 3, "(8), or be a multiple of it that divides the number of all devices (8)"),
        ((0, 0, 1, 1), 3, "(2), or be a multiple of it that divides the number of all devices (4)"),
        ((0, 0, 1, 1, 2, 2), 4, "(2), or be a multiple of it that divides the number of all devices (6)"),
        ((0, 0, 1, 1), 8, "(2), or be a multiple of it that divides the number of all devices (4)"),
        ((0, 0, 1), 3, "(1 or 2), or be a multiple of it that divides the number of all devices (3)"),
    ],
)
def test_other_numbers_of_devices_are_an_error(processes, shared_by, counts):
    with pytest.raises(ValueError) as error:
        sharding._by_image(devices_of_processes(*processes), shared_by)
    assert str(error.value) == (
        f"spatial_devices ({shared_by}) must divide the number of devices of each process {counts}"
    )


@pytest.mark.parametrize(
    ("process", "shared_by", "share"),
    [(0, 1, (0, 4)), (3, 1, (3, 4)), (3, 2, (3, 4)), (1, 4, (0, 2)), (2, 4, (1, 2)), (3, 8, (0, 1))],
)
def test_processes_that_share_an_image_load_the_same_share(monkeypatch, process, shared_by, share):
    """Of four processes with two devices each."""
    monkeypatch.setattr(sharding.jax, "process_count", lambda: 4)
    monkeypatch.setattr(sharding.jax, "process_index", lambda: process)
    assert share_of_batch(mesh_of((8 // shared_by, shared_by))) == share


@pytest.fixture(scope="module")
def feature_gradient(tiny_config):
    """``feature_gradient(shape)``: the gradient of a loss on all maps and the RPN's outputs, compiled."""
    config = dataclasses.replace(tiny_config.model, backbone_norm="frozen_batch")
    blueprint = make_blueprint(config, num_classes=4, num_keypoints=9)

    def loss(weights, images, sizes):
        model = blueprint.build(weights)
        features = model.features(images, sizes)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves((features.maps, model.rpn(features))))

    def compiled(shape):
        mesh = mesh_of(shape)
        sharding, images = batch_sharding(mesh), 2 * shape[0]
        arguments = (
            blueprint.shapes(),
            jax.ShapeDtypeStruct((images, 1024, 128, 3), np.uint8),
            jax.ShapeDtypeStruct((images, 2), np.int32),
        )
        shardings = replicated(mesh), sharding.images, sharding.image_sizes
        with jax.set_mesh(mesh):
            return jax.jit(jax.grad(loss), in_shardings=shardings).lower(*arguments).compile()

    return compiled


@pytest.mark.slow
def test_features_need_their_neighbours_rows_alone_and_less_memory(feature_gradient):
    whole, shared = feature_gradient((1, 1)), feature_gradient((2, 4))
    found = collectives(shared)
    assert found.keys() == {"collective-permute", "all-reduce", "all-gather"}
    assert max(shape[1] for shape in found["collective-permute"]) == 3, "rows for the first convolution"
    assert {shape for shape in found["all-gather"] if shape[-1] not in (3, 12)} == {(2, 32, 4, 16)}, (
        "besides objectness and deltas the last map alone, for p6"
    )
    memory = [program.memory_analysis().temp_size_in_bytes for program in (whole, shared)]
    assert memory[1] < 0.4 * memory[0]


@pytest.mark.slow  # compiles two gradients
def test_one_map_with_a_non_local_block_is_that_of_one_device(tiny_config, batch):
    config = dataclasses.replace(
        tiny_config.model, features="c5", non_local="subsampled", backbone_norm="group"
    )
    blueprint = make_blueprint(config, num_classes=4, num_keypoints=9)
    weights = blueprint.draw(jax.random.key(0))
    weights["backbone.non_local.norm.scale"] = jnp.ones_like(weights["backbone.non_local.norm.scale"])

    def loss(weights, images, sizes):
        model = blueprint.build(weights)
        features = model.features(images, sizes)
        outputs = features.maps, model.rpn(features)
        return sum(jnp.mean(x**2) for x in jax.tree.leaves(outputs)), outputs

    def run(shape):
        mesh = mesh_of(shape)
        sharding = batch_sharding(mesh)
        arguments = weights, batch.images[2:], batch.image_sizes[2:]
        shardings = replicated(mesh), sharding.images, sharding.image_sizes
        with jax.set_mesh(mesh):
            compute = jax.jit(jax.grad(loss, has_aux=True), in_shardings=shardings)
            return jax.device_get(compute(*jax.device_put(arguments, shardings)))

    (gradient, outputs), (found_gradient, found) = run((1, 1)), run((1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, outputs)
    assert np.abs(gradient["backbone.non_local.theta.kernel"]).max() > 0
    for name, value in gradient.items():
        np.testing.assert_allclose(
            found_gradient[name], value, rtol=1e-3, atol=1e-3 * np.abs(value).max() + 1e-7, err_msg=name
        )


@pytest.fixture(scope="module")
def batch():
    """Four tall images of noise with three objects each; the last is smaller than its canvas."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (4, 4, 2)) * [1, 4]
    boxes = np.concatenate([corner, corner + rng.uniform(8, 34, (4, 4, 2)) * [1, 4]], axis=-1)
    keypoints = rng.uniform(corner[:, :, None], boxes[:, :, None, 2:], (4, 4, 9, 2))
    visibility = rng.integers(0, 3, (4, 4, 9, 1))
    return Batch(
        images=rng.integers(0, 256, (4, HEIGHT, 64, 3), dtype=np.uint8),
        image_sizes=np.array([[HEIGHT, 64]] * 3 + [[187, 50]], np.int32),
        ids=None,
        gt=GroundTruth(
            boxes=boxes.astype(np.float32),
            labels=rng.integers(1, 5, (4, 4), dtype=np.int32),
            crowd=np.zeros((4, 4), bool),
            valid=np.tile([True, True, True, False], (4, 1)),
            masks=rng.integers(0, 2, (4, 4, 28, 28), dtype=np.uint8),
            mask_boxes=boxes.astype(np.float32),
            keypoints=np.concatenate([keypoints, visibility], axis=-1).astype(np.float32),
        ),
    )


@pytest.fixture(scope="module")
def config(tiny_config):
    data = dataclasses.replace(tiny_config.data, canvases=((HEIGHT, 64),))
    train = dataclasses.replace(tiny_config.train, batch_size=4)
    return dataclasses.replace(tiny_config, data=data, train=train)


@pytest.fixture(scope="module")
def take_step(tiny_blueprint, tiny_weights, config, batch):
    """``take_step(shape)``: the compiled step, and the weights and metrics after it."""

    @functools.cache
    def run(shape):
        mesh = mesh_of(shape)
        step = compile_step(tiny_blueprint, config, mesh)
        begin = jax.jit(partial(make_state, tiny_blueprint, config=config), out_shardings=replicated(mesh))
        state, on_devices = begin(tiny_weights), jax.device_put(batch, batch_sharding(mesh))
        compiled = step.lower(state, on_devices).compile()
        state, metrics = compiled(state, on_devices)
        return compiled, jax.device_get(state.weights()), jax.device_get(metrics)

    return run


def assert_is_that_of_one_device(take_step, shape):
    _, weights, metrics = take_step((1, 1))
    _, found, found_metrics = take_step(shape)
    for name, value in metrics.items():
        np.testing.assert_allclose(found_metrics[name], value, rtol=2e-5, err_msg=name)
    for name, value in weights.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow  # compiles two steps
def test_a_step_is_that_of_one_device_and_gathers_maps_once(take_step):
    assert_is_that_of_one_device(take_step, (2, 4))
    found = collectives(take_step((2, 4))[0])
    assert found.keys() == {"collective-permute", "all-reduce", "all-gather", "reduce-scatter"}
    assert max(shape[1] for shape in found["collective-permute"]) == 3, "rows for the first convolution"
    maps = sorted((2, HEIGHT // stride, 64 // stride, 16) for stride in (4, 8, 16, 32))
    heads = [(2, 16, 5), (2, 16, 4, 4), (2, 4, 28, 28), (2, 4, 56, 56, 9)]
    rpn = [(*shape[:3], channels) for shape in maps for channels in (3, 12)]
    for_p6 = [maps[0]]
    assert sorted(found["all-gather"]) == sorted(maps + heads + rpn + for_p6)
    assert sorted(found["reduce-scatter"]) == [(b, rows // 4, columns, c) for b, rows, columns, c in maps]


@pytest.mark.slow  # tests/training/test_step.py has (8, 1)
@pytest.mark.parametrize("shape", [(1, 8), (4, 2)])
def test_a_step_on_other_meshes(take_step, shape):
    assert_is_that_of_one_device(take_step, shape)


@pytest.fixture(scope="module")
def predict(tiny_blueprint, tiny_weights, config, batch):
    """``predict(shape)``: the detections in the batch."""

    @functools.cache
    def run(shape):
        mesh = mesh_of(shape)
        weights = jax.device_put(tiny_weights, replicated(mesh))
        predict_fn = make_predict_fn(tiny_blueprint, config, mesh)(weights)
        return jax.device_get(predict_fn(batch.images, batch.image_sizes))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8), (2, 4), (4, 2)])
def test_detections_are_those_of_one_device(predict, shape):
    assert_same_detections(predict(shape), predict((1, 1)))


@pytest.mark.slow  # compiles two programs for each mesh
def test_merged_detections_of_mirrored_images_are_those_of_one_device(
    tiny_blueprint, tiny_weights, config, batch
):
    augmented = dataclasses.replace(config, test=dataclasses.replace(config.test, flip=True))
    mirrored = np.zeros_like(batch.images)
    for row, (_, width) in enumerate(batch.image_sizes):
        mirrored[row, :, :width] = batch.images[row, :, :width][:, ::-1]
    views = [(batch.images, batch.image_sizes), (mirrored, batch.image_sizes)]
    found = []
    for shape in [(1, 1), (2, 4)]:
        mesh = mesh_of(shape)
        weights = jax.device_put(tiny_weights, replicated(mesh))
        predict_fn = make_predict_fn(tiny_blueprint, augmented, mesh)(weights)
        found.append(jax.device_get(predict_fn(views, batch.image_sizes, np.arange(9)[::-1])))
    assert_same_detections(*found[::-1])


def assert_same_detections(found, wanted):
    assert wanted.valid.all()
    np.testing.assert_array_equal(found.valid, wanted.valid)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    for name in ("boxes", "scores", "masks", "keypoints"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-5, err_msg=name
        )


@pytest.mark.slow  # compiles two steps
def test_a_step_in_parts_on_devices_that_share_images(config, batch):
    """Group norm does not depend on the part that an image is in."""
    model = dataclasses.replace(config.model, backbone_norm="group")
    blueprint = make_blueprint(model, num_classes=4, num_keypoints=9)
    weights = jax.device_get(blueprint.draw(jax.random.key(0)))

    def step(shape, parts):
        train = dataclasses.replace(config.train, accumulate=parts)
        in_parts, mesh = dataclasses.replace(config, model=model, train=train), mesh_of(shape)
        state = make_state(blueprint, jax.tree.map(jnp.array, weights), in_parts)
        state = jax.device_put(state, replicated(mesh))
        state, metrics = compile_step(blueprint, in_parts, mesh)(
            state, jax.device_put(batch, batch_sharding(mesh))
        )
        return jax.device_get((metrics, state.params))

    (wanted, params), (found, found_params) = step((1, 1), 1), step((2, 2), 2)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)
    for name, value in params.items():
        np.testing.assert_allclose(found_params[name], value, atol=1e-5, err_msg=name)
