"""Narrow models of torchvision's, against what ``torchvision_peer.py --tiny`` stored of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mrcnn_jax import presets
from mrcnn_jax.images import fit
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.sharding import make_mesh
from mrcnn_jax.training.step import make_state, train_step
from mrcnn_jax.types import Batch, Categories, GroundTruth
from mrcnn_jax.weights.torchvision import from_torchvision, layouts
from tests.parity import compare, ours
from tests.parity.measure import TORCHVISION
from tests.parity.seeded import CLASSES, DETECTED, KEYPOINTS, TRAINED, Scene, seeded, thin

FIXTURE = Path(__file__).parents[1] / "fixtures" / "torchvision_models.npz"


def make_config(kind: str):
    """torchvision's settings for the model that ``torchvision_models.build_tiny`` makes."""
    config = presets.torchvision()
    model, data, train, test = config.model, config.data, config.train, config.test
    model.backbone_depth = 50 if kind == "mask" else 18
    model.backbone_width = 8
    model.backbone_norm_epsilon = 0.0 if kind != "v2" else 1e-5
    model.fpn_channels = 16
    model.anchor_sizes = (8.0, 16.0, 32.0, 64.0, 128.0)
    model.roi_canonical_size = 32.0
    model.box_channels = 32
    model.mask_convs = model.keypoint_convs = 2
    model.mask_channels = model.keypoint_channels = 16
    model.mask, model.keypoint = kind != "keypoint", kind == "keypoint"
    if kind == "v2":
        model.backbone_norm = model.fpn_norm = model.box_norm = model.mask_norm = "batch"
        model.backbone_frozen_stages = 0
        model.rpn_convs = model.box_convs = 2
        model.box_fcs = 1
    data.train_short_sides, data.test_short_side, data.long_side = (96,), 96, 160
    # Larger than any image needs: that must make no difference.
    data.canvases = ((192, 224),)
    train.rpn_samples, train.roi_samples = 8000, 512
    train.rpn_positive_iou, train.roi_positive_iou = 0.5, 0.35
    train.rpn_pre_nms, train.rpn_post_nms = 300, 200
    train.learning_rate, train.schedule, train.decay_steps, train.warmup_steps = 0.001, "step", (), 0
    test.rpn_pre_nms, test.rpn_post_nms = 300, 200
    test.score_threshold, test.detections = 0.01, 20
    return config


class Model:
    """A narrow model of ours with torchvision's weights, and what torchvision's computed."""

    def __init__(self, kind: str) -> None:
        with np.load(FIXTURE) as archive:
            self.theirs = {
                name.removeprefix(f"{kind}/"): archive[name]
                for name in archive
                if name.startswith(f"{kind}/")
            }
        self.config = make_config(kind)
        classes, points = (1, KEYPOINTS) if kind == "keypoint" else (CLASSES, 0)
        self.categories = Categories(
            ids=tuple(range(1, classes + 1)),
            names=("",) * classes,
            keypoint_labels=(1,) if points else (),
            keypoint_names=tuple(map(str, range(points))),
        )
        self.blueprint = make_blueprint(self.config.model, num_classes=classes, num_keypoints=points)
        self.state_dict = {}
        for entry in self.theirs["weights"]:
            name, *shape = str(entry).split(" ")
            shape = tuple(map(int, filter(None, shape)))
            self.state_dict[name] = seeded(name, shape) if shape else np.zeros((), np.int64)
        self.weights = ours.to_device(from_torchvision(self.state_dict, self.blueprint, source="seeded"))

    def of_image(self, number: int) -> dict[str, np.ndarray]:
        prefix = f"{number}/"
        return {n.removeprefix(prefix): v for n, v in self.theirs.items() if n.startswith(prefix)}

    def batch(self, scenes: tuple[Scene, ...]) -> Batch:
        """Scenes as our pipeline makes batches of images and annotations."""
        data = self.config.data
        images, sizes, rows = [], [], []
        for scene in scenes:
            fitted = fit(scene.image, short_side=96, long_side=160, canvases=data.canvases, rule=data.resize)
            images.append(fitted.image)
            sizes.append(fitted.size)
            # In float32, as torchvision: keypoints lie on the edges of cells, where rounding decides.
            scale = np.float32(fitted.size[::-1]) / np.float32(scene.image.shape[1::-1])  # x y
            padding = 8 - len(scene.boxes)
            rows.append(
                {
                    "boxes": scene.boxes * np.tile(scale, 2),
                    "labels": np.minimum(scene.labels, len(self.categories)),
                    "masks": scene.masks,
                    "keypoints": scene.keypoints * np.append(scale, np.float32(1)),
                    "valid": np.ones(len(scene.boxes), bool),
                }
            )
            rows[-1] = {k: np.pad(v, [(0, padding)] + [(0, 0)] * (v.ndim - 1)) for k, v in rows[-1].items()}
        stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        gt = GroundTruth(
            boxes=stacked["boxes"].astype(np.float32),
            labels=stacked["labels"].astype(np.int32),
            crowd=np.zeros_like(stacked["valid"]),
            valid=stacked["valid"],
            masks=stacked["masks"] if self.config.model.mask else None,
            keypoints=stacked["keypoints"].astype(np.float32) if self.config.model.keypoint else None,
        )
        return Batch(images=np.stack(images), image_sizes=np.array(sizes, np.int32), ids=None, gt=gt)


@pytest.fixture(scope="module", params=["mask", "keypoint", "v2"])
def model(request) -> Model:
    return Model(request.param)


def test_every_stage(model: Model):
    for number, scene in enumerate(DETECTED):
        theirs = model.of_image(number)
        found = ours.stages(model.blueprint, model.weights, model.config, scene.image, theirs)
        assert (
            tuple(theirs["image_size"])
            == fit(
                scene.image,
                short_side=96,
                long_side=160,
                canvases=model.config.data.canvases,
                rule="torchvision",
            ).size
        )
        for name, value in found.items():
            if name == "box_deltas":  # torchvision's have the background's, too
                value = np.pad(value, [(0, 0), (1, 0), (0, 0)], constant_values=np.nan)
            wanted, value = theirs[name], thin(value)
            if name == "proposals/scores":
                value = 1 / (1 + np.exp(-value))
            compared = ~np.isnan(value)
            assert compared.mean() > 0.4, name
            bound = 0 if name.startswith("anchors") else 1e-5 if name == "pixels" else 1e-4
            scale = max(float(np.abs(wanted).max()), 1.0)
            np.testing.assert_allclose(
                value[compared], wanted[compared], atol=bound * scale, rtol=0, err_msg=f"{number} {name}"
            )
        assert {name for name in theirs if "/" in name and "backbone" not in name} <= set(found)


def test_detections(model: Model):
    predict_fn = make_predict_fn(model.blueprint, model.config, make_mesh(jax.devices()[:1]))
    detector = Detector(lambda *arrays: predict_fn(model.weights, *arrays), model.config, model.categories)
    total = compare.Detections()
    for number, scene in enumerate(DETECTED):
        total.add(detector(scene.image), model.of_image(number), paste=model.config.test.mask_paste)
    assert total.count >= 20
    for name, value, bound, note in total.rows():
        assert bound is None or value <= bound, (name, value, note)


def test_losses_gradients_and_steps(model: Model):
    """Three steps; the first one's gradients are the optimizer's momentum less the weight decay."""
    theirs, train = model.theirs, model.config.train
    batches = [model.batch(scenes) for scenes in TRAINED]
    state = make_state(model.blueprint, jax.tree.map(jnp.copy, model.weights), model.config)
    step = jax.jit(
        lambda state, batch: train_step(state, batch, blueprint=model.blueprint, config=model.config)
    )
    params = state.params
    history = []
    gradients = {}
    for number in range(3):
        state, metrics = step(state, batches[number % len(batches)])
        history.append(jax.device_get(metrics))
        if number == 0:
            leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, optax.TraceState))
            (momentum,) = (leaf.trace for leaf in leaves if isinstance(leaf, optax.TraceState))
            is_norm = {name for name in params if f"{name.rpartition('.')[0]}.scale" in params}
            gradients = {
                name: np.asarray(momentum[name])
                - (name not in is_norm) * train.weight_decay * np.asarray(params[name])
                for name in params
            }
    names = [name for name in TORCHVISION.losses if f"losses/{TORCHVISION.losses[name]}" in theirs]
    assert len(names) == 5
    for name in names:
        there = TORCHVISION.losses[name]
        assert history[0][name] == pytest.approx(float(theirs[f"losses/{there}"]), rel=1e-4), name
        np.testing.assert_allclose(
            [metrics[name] for metrics in history], theirs[f"steps/{there}"], rtol=1e-3, err_msg=name
        )

    by_name = layouts(model.blueprint)
    found = {by_name[name].name: by_name[name].write(value) for name, value in gradients.items()}
    wanted = {n.removeprefix("gradients/"): v for n, v in theirs.items() if n.startswith("gradients/")}
    assert set(found) == set(wanted)
    norms = dict(zip(wanted, theirs["gradient_norms"], strict=True))
    floor = 1e-6 * float(max(norms.values()))
    for name, value in wanted.items():
        if norms[name] <= floor:  # zero but for rounding: a bias before a softmax
            assert np.linalg.norm(found[name]) <= floor, name
            continue
        share = np.sqrt(value.size / found[name].size)  # of the norm, in what is stored
        difference = np.linalg.norm(thin(found[name]).ravel() - value.ravel())
        assert difference <= 1e-3 * norms[name] * share, name
        assert np.linalg.norm(found[name]) == pytest.approx(norms[name], rel=1e-3), name
