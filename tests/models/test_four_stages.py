"""ConvNeXt and Swin: parity with torchvision, larger canvases, dropped paths, frozen stages."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from mrcnn_jax.models import convnext, swin
from mrcnn_jax.models.backbone import make_backbone
from mrcnn_jax.models.variables import make_blueprint, name_of
from mrcnn_jax.weights.four_stages import torchvision_layout
from tests.fixtures.torchvision_four_stages import DEPTHS, SIZE, seeded, some

FIXTURE = Path(__file__).parents[1] / "fixtures" / "torchvision_four_stages.npz"
BACKBONES = ("convnext_t", "swin_t")


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    for sizes in (convnext.SIZES, swin.SIZES):
        for name, size in sizes.items():
            monkeypatch.setitem(sizes, name, size._replace(depths=DEPTHS))


def _seeded_model(backbone, **changes):
    """An eighth as wide, with the weights of the fixture."""
    config = ModelConfig(backbone=backbone, backbone_width=8, **changes)
    model = make_backbone(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path[0] != "norms":
            layout = torchvision_layout(name_of(path), variable.shape, backbone)
            variable[...] = jnp.asarray(layout.read(seeded(layout.name, layout.shape)))
    return model


def _jitted(model):
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, *given: nnx.merge(graphdef, state)(*given))
    return partial(run, state)


@pytest.mark.parametrize("backbone", ["convnext_t", pytest.param("swin_t", marks=pytest.mark.slow)])
def test_outputs_and_gradients_equal_torchvision(backbone):
    graphdef, state = nnx.split(_seeded_model(backbone, backbone_recomputed_stages=1))
    image = jnp.asarray(seeded("image", (1, *SIZE, 3)) * 8)

    @jax.jit
    def run(state):
        def loss(state):
            maps = nnx.merge(graphdef, state)(image)
            return sum((x * seeded(level, x.shape)).sum() for level, x in maps.items()), maps

        return jax.grad(loss, has_aux=True)(state)

    gradients, maps = run(state)
    with np.load(FIXTURE) as theirs:
        for level, x in maps.items():
            np.testing.assert_allclose(some(np.asarray(x), 500), theirs[f"{backbone}/{level}"], atol=1e-4)
        compared = 0
        for path, variable in nnx.to_flat_state(gradients):
            if path[0] == "norms":
                continue
            layout = torchvision_layout(name_of(path), variable.shape, backbone)
            wanted = theirs[f"{backbone}/{layout.name}"]
            found = some(np.ascontiguousarray(layout.write(np.asarray(variable[...]))), 8)
            scale = np.abs(np.asarray(variable[...])).max()
            np.testing.assert_allclose(found, wanted, atol=1e-4 * scale, rtol=1e-3, err_msg=layout.name)
            compared += 1
        assert compared + 4 == sum(name.startswith(backbone) for name in theirs)


# of the papers' detectors: torchvision's classifiers without their last norm and linear layer, and the norms
PARAMETERS = {
    "convnext_t": 28_589_128 - 769_000 - 2 * 768 + 2 * (96 + 192 + 384 + 768),
    "convnext_s": 50_223_688 - 769_000 - 2 * 768 + 2 * (96 + 192 + 384 + 768),
    "swin_t": 28_288_354 - 769_000 - 2 * 768 + 2 * (96 + 192 + 384 + 768),
    "swin_s": 49_606_258 - 769_000 - 2 * 768 + 2 * (96 + 192 + 384 + 768),
}


@pytest.mark.parametrize(
    "backbone", [pytest.param(x, marks=[pytest.mark.slow] if x.endswith("_s") else []) for x in PARAMETERS]
)
def test_number_of_parameters(backbone, monkeypatch):
    monkeypatch.undo()  # all blocks
    shapes = make_blueprint(ModelConfig(backbone=backbone), num_classes=1).shapes()
    found = sum(np.prod(x.shape, dtype=int) for name, x in shapes.items() if name.startswith("backbone."))
    assert found == PARAMETERS[backbone]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_larger_canvas_changes_nothing(backbone):
    """Whatever lies beyond the image, or beside it in the batch."""
    model = _seeded_model(backbone)
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    canvas = np.zeros((2, 160, 128, 3), np.float32)
    canvas[0, :64, :96], canvas[1, :96, :64] = image[0], image[0].swapaxes(0, 1)
    run = _jitted(model)
    alone = run(jnp.asarray(image))
    larger = run(jnp.asarray(canvas), jnp.array([[64, 96], [96, 64]]))
    for level, stride in model.strides.items():
        rows, columns = 64 // stride, 96 // stride
        assert alone[level].shape == (1, rows, columns, model.channels[level])
        np.testing.assert_allclose(
            larger[level][0, :rows, :columns], alone[level][0], atol=2e-5, err_msg=level
        )


@pytest.mark.parametrize("backbone", ["convnext_t", pytest.param("swin_t", marks=pytest.mark.slow)])
def test_paths_are_dropped_by_image(backbone):
    """An image's maps depend on its own key alone, and are those of inference without a key."""
    model = _seeded_model(backbone, backbone_drop_path=0.5)
    shares = [block.drop_path for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(shares, np.linspace(0, 0.5, sum(DEPTHS)))
    run = _jitted(model)
    images = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), 3)
    found, others = run(images, None, keys)["c5"], run(images, None, keys[::-1])["c5"]
    np.testing.assert_allclose(others[1], found[1], atol=1e-5)
    assert not np.allclose(others, found, atol=1e-2)
    assert not np.allclose(run(images)["c5"], found, atol=1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("eight_devices")
def test_devices_that_share_images_of_convnext_change_nothing():
    """Maps and gradients of two images of 256 x 64 pixels, by two devices each, or by eight."""
    graphdef, state = nnx.split(_seeded_model("convnext_t"))
    images = seeded("images", (2, 256, 64, 3))
    images[1, 160:] = 0
    sizes = np.array([[256, 64], [160, 64]], np.int32)

    def loss(state, images, sizes):
        maps = nnx.merge(graphdef, state)(images, sizes)
        return sum((jnp.sin(x) * seeded(level, x.shape[3:])).sum() for level, x in maps.items())

    def run(groups, shared_by):
        mesh = make_mesh(jax.devices()[: groups * shared_by], spatial_devices=shared_by)
        sharding = batch_sharding(mesh)
        shardings = replicated(mesh), sharding.images, sharding.image_sizes
        with jax.set_mesh(mesh):
            step = jax.jit(jax.value_and_grad(loss), in_shardings=shardings)
            return jax.tree.leaves(step(*jax.device_put((state, images, sizes), shardings)))

    alone = run(1, 1)
    for shape in ((1, 2), (2, 4)):
        for one, other in zip(alone, run(*shape), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "frozen_stages", "expected"),
    [
        (("stem", "kernel"), 0, False),
        (("stem_norm", "scale"), 1, True),
        (("stages", 0, "blocks", 0, "fc1", "kernel"), 1, False),
        (("stages", 0, "blocks", 0, "fc1", "kernel"), 2, True),
        (("stages", 1, "downsample", "norm", "bias"), 2, False),
        (("stages", 3, "downsample", "norm", "bias"), 5, True),
        (("norms", 0, "scale"), 5, False),
    ],
)
def test_frozen_stages_begin_with_the_stem(path, frozen_stages, expected):
    config = ModelConfig(backbone="swin_t", backbone_width=8, backbone_frozen_stages=frozen_stages)
    backbone = nnx.eval_shape(lambda: make_backbone(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    assert backbone.is_frozen(path) is expected
