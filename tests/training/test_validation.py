"""The losses of the validation set: those of one batch of all its images, however they are batched."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.training import monitor, validation
from mrcnn_jax.training.losses import LossSums
from mrcnn_jax.training.monitor import Monitor
from mrcnn_jax.training.validation import ValidationLosses


@pytest.fixture
def measured(config, tiny_blueprint):
    source = open_validation_source(config, mask_grid=config.data.mask_grid)
    mesh = make_mesh(jax.devices()[:1])
    return ValidationLosses(tiny_blueprint, config, source.categories, source, mesh, batch_size=2)


@pytest.mark.slow
def test_the_rows_that_fill_a_batch_have_no_part(measured, tiny_weights, monkeypatch):
    """Three images in two batches, of which the second has one such row, and each in a batch with one."""
    losses = measured.measure(tiny_weights)
    names = {"rpn_objectness", "rpn_box", "box_class", "box", "mask", "keypoint", "loss"}
    assert losses.keys() == names and all(np.isfinite(value) for value in losses.values())
    assert losses["rpn_objectness"] == pytest.approx(np.log(2), rel=0.02)  # as guessing, over three images
    assert losses["mask"] == pytest.approx(np.log(2), rel=0.02)
    images, apart = measured._images, {}
    assert len(images) == 3
    for index in images:
        monkeypatch.setattr(measured, "_images", np.array([index]))
        validation._add(apart, measured._sum(tiny_weights))
    monkeypatch.setattr(measured, "_sum", lambda _: apart)
    assert measured.measure(tiny_weights) == pytest.approx(losses, rel=1e-4)


def test_sums_of_processes_by_hand(measured, tiny_weights, monkeypatch):
    """Sums are divided by the counts of all processes; images that fill a batch are not counted."""

    def sum_losses(model, batch, keys, config, image_counts):
        objects = (batch.gt.valid & ~batch.gt.crowd).sum()
        noise = jax.vmap(jax.random.uniform)(keys[1])
        return {
            "rpn": LossSums({"rpn_box": jnp.array(6.0)}, 4 * len(batch.images)),
            "box": LossSums({"box": 0.5 * objects, "box_class": noise[0]}, objects),
        }

    monkeypatch.setattr(validation, "sum_losses", sum_losses)
    own = measured._sum(tiny_weights)
    assert own["rpn"] == {"rpn_box": 12, "count": 4 * 3}
    assert own["box"]["box"] == 0.5 * own["box"]["count"] > 0
    # An image's key is made from the seed and its index.
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(0), index))[1] for index in (0, 2)]
    assert own["box"]["box_class"] == pytest.approx(sum(map(float, map(jax.random.uniform, keys))))
    other = {"rpn": {"rpn_box": 3.0, "count": 8.0}, "box": {"box": 0.0, "box_class": 1.0, "count": 0.0}}
    monkeypatch.setattr(validation.hosts, "all_gather", lambda mine: [mine, other] if mine else [])
    losses = measured.measure(tiny_weights)
    assert losses["rpn_box"] == 15 / 20 and losses["box"] == pytest.approx(0.5)
    assert losses["loss"] == pytest.approx(15 / 20 + 0.5 + losses["box_class"])


def test_it_is_part_of_an_evaluation(config, tiny_blueprint, tmp_path, monkeypatch, capsys):
    train = dataclasses.replace(config.train, validation_loss=True)
    config = dataclasses.replace(config, train=train)
    source = open_validation_source(config, mask_grid=config.data.mask_grid)
    losses = {"rpn_objectness": 0.5, "rpn_box": 0.25, "mask": 1.0, "loss": 1.75}
    monkeypatch.setattr(monitor, "on_local_devices", lambda weights, _: weights)
    monkeypatch.setattr(monitor, "make_predict_fn", lambda *_: lambda _: lambda *_: None)
    monkeypatch.setattr(monitor, "evaluate", lambda *_, **__: {"per_category": {}})
    monkeypatch.setattr(Monitor, "_write_pictures", lambda *_: "folder")
    monkeypatch.setattr(ValidationLosses, "measure", lambda self, weights: losses)
    seen = {}
    of_run = Monitor(
        tmp_path,
        tiny_blueprint,
        config,
        source.categories,
        source,
        [lambda step, values: seen.update(values)],
    )
    with of_run.writing(after_step=0):
        assert of_run.evaluate(4, {}) == {}
    assert seen == {f"validation/{name}": value for name, value in losses.items()}
    assert "step 4: validation loss 1.75  rpn 0.50+0.25 mask 1.00\n" in capsys.readouterr().out
