"""The workloads and timing of benchmarks/speed.py; nothing is asserted about the times."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.benchmarks.peers.process import Peer
from mrcnn_jax.benchmarks.timing import Workload, count_flops, median_seconds
from mrcnn_jax.benchmarks.workloads import evaluation, models, onnx_files, ops
from mrcnn_jax.ops.boxes import is_nonempty

PEER = """
import json, sys
import numpy as np
request = json.loads(sys.stdin.readline())
assert np.load(request["arrays"])["x"].tolist() == [1, 2]
print(json.dumps({"device": f"{request['workload']} {request['precision']}", "version": "0.28"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 0.5 * json.loads(line)["times"]}), flush=True)
"""

pytestmark = pytest.mark.usefixtures("drawn_eagerly")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


class Scripted:
    """A runner with scripted times per run."""

    def __init__(self, *seconds):
        self.left = list(seconds)
        self.requests = []

    def seconds(self, times):
        self.requests.append(times)
        return times * self.left.pop(0)


def test_medians_of_turns_after_warm_up():
    slow, fast = Scripted(9.0, 1.0, 2.0, 7.0, 3.0), Scripted(9.0, 0.01, 0.03, 0.01, 0.02)
    assert median_seconds([slow, fast], 3) == [3.0, 0.02]
    assert slow.requests == [1, 1, 1, 1, 1]
    assert fast.requests == [1, 1, 20, 20, 20]  # short workloads run several times per turn


def test_a_peer_runs_the_same_workload(monkeypatch, tmp_path):
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    monkeypatch.setattr("mrcnn_jax.benchmarks.peers.process._PROGRAM", script)
    workload = Workload("sum", lambda: None, {}, lambda: {"x": np.array([1, 2])})
    with Peer(sys.executable, workload, precision="highest") as peer:
        assert peer.system == "torchvision 0.28 on sum highest" and peer.seconds(4) == 2.0


def test_a_peer_that_fails_is_an_error(monkeypatch, tmp_path):
    script = tmp_path / "peer.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr("mrcnn_jax.benchmarks.peers.process._PROGRAM", script)
    with pytest.raises(ValueError, match=r"--peer=.*: no answer; ended with exit code 3"):
        Peer(sys.executable, Workload("sum", lambda: None))
    script.write_text("import sys; print('welcome', flush=True); sys.stdin.read()")
    with pytest.raises(ValueError, match=r"--peer=.*: no answer; ended with exit code 0"):
        Peer(sys.executable, Workload("sum", lambda: None))
    with pytest.raises(ValueError, match=r"--peer=no/python: No such file"):
        Peer("no/python", Workload("sum", lambda: None))


def test_boxes_lie_inside_the_image():
    boxes = ops.random_boxes(np.random.default_rng(0), 500)
    assert bool(is_nonempty(jnp.asarray(boxes), 1.0).all())
    assert boxes.min() >= 0 and (boxes.max(axis=0) <= [1333, 800, 1333, 800]).all()


def test_nms_takes_any_number_of_boxes():
    workload = ops.suppress("nms_19", boxes=19)
    assert {name: len(values) for name, values in workload.arrays().items()} == {"boxes": 19, "scores": 19}
    indices, valid = workload.run()
    kept = np.asarray(indices)[np.asarray(valid)]
    assert 0 < len(kept) == len(set(kept.tolist())) and kept.max() < 19


def test_multiplications_and_additions_are_counted():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert count_flops(lambda a, b: a @ b, a, b)() == 2 * 3 * 5 * 7


def test_least_bytes_are_maps_and_results():
    cells = 200 * 336 + 100 * 168 + 50 * 84 + 25 * 42
    workload = ops.pool_pyramid("roi_align_grad", rois=2, sampling_ratio=2, gradient=True)
    assert workload.moved_bytes == 2 * 4 * 256 * (cells + 2 * 7 * 7)


@pytest.mark.slow  # starts a process
def test_timing_the_model_needs_neither_tensorflow_nor_an_evaluator():
    absent = "tensorflow", "tensorflow_datasets", "hotcoco", "pycocotools"
    modules = (
        "fresh",
        "peak",
        "trace",
        "peers.process",
        "workloads.growth",
        "workloads.models",
        "workloads.ops",
    )
    program = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n" + "".join(
        f"import mrcnn_jax.benchmarks.{module}\n" for module in modules
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_metrics_without_data_are_none_on_both_sides():
    ours, theirs = evaluation.evaluate("evaluation_bbox", images=1)
    assert ours.run() == theirs.run() and None in ours.run()


def test_metrics_equal_pycocotools():
    for kind in ("bbox", "segm", "keypoints"):
        ours, theirs = evaluation.evaluate(f"evaluation_{kind}", images=3)
        assert ours.run() == theirs.run() and max(ours.run()) > 0


def test_onnx_files_need_a_model_of_torchvisions(tiny_config, tiny_blueprint, tmp_path):
    model = models.Model(tiny_config, tiny_blueprint, weights={}, image_size=(64, 64))
    with pytest.raises(ValueError, match="--only=onnx compares with torchvision, which has no such model"):
        next(onnx_files.infer(model, tmp_path))


def test_onnx_files_are_given_to_the_peer(tiny_config, tiny_blueprint, tmp_path, monkeypatch):
    weights = {name: jnp.zeros(shape.shape) for name, shape in tiny_blueprint.shapes().items()}
    monkeypatch.setattr(models, "builder_name", lambda config: "maskrcnn_resnet50_fpn")
    monkeypatch.setattr(
        models, "to_torchvision", lambda weights, blueprint: {"bias": weights["fpn.inner.0.conv.bias"]}
    )
    model = models.Model(tiny_config, tiny_blueprint, weights, image_size=(64, 64))
    pairs = list(onnx_files.infer(model, tmp_path))
    assert [ours.name for ours, _ in pairs] == [
        "onnx: onnxruntime, pasted", "onnx: onnxruntime", "onnx: openvino", "onnx: openvino_bf16"
    ]  # fmt: skip
    for ours, theirs in pairs:
        assert ours.settings["ours"] and not theirs.settings["ours"] and ours.name == theirs.name
        assert set(ours.arrays()) == {"images"} and set(theirs.arrays()) == {"images", "weights/bias"}
        assert ours.settings["file"] == str(tmp_path / "ours.onnx") and (tmp_path / "ours.onnx").is_file()
    files = [theirs.settings["file"] for _, theirs in pairs]
    assert files[0] == str(tmp_path / "torchvision_pasted.onnx") and len(set(files)) == 2


@pytest.mark.slow
def test_the_model_finds_the_maximum_number_of_objects(tiny_config):
    without_keypoints = dataclasses.replace(tiny_config.model, keypoint=False)
    every_score = dataclasses.replace(tiny_config.test, score_threshold=0.0)
    config = dataclasses.replace(tiny_config, model=without_keypoints, test=every_score)
    model = models.make_model(config, choose_threshold=False)
    workload = models.infer("inference_b1", model, 1)
    (entries,) = workload.run()
    assert len(entries) == tiny_config.test.detections and "segmentation" in entries[0]
    assert workload.flops() > 0 and workload.images == 1


@pytest.mark.slow
def test_the_stages_of_inference_run_one_by_one(tiny_config):
    every_score = dataclasses.replace(tiny_config.test, score_threshold=0.0)
    model = models.make_model(dataclasses.replace(tiny_config, test=every_score), choose_threshold=False)
    stages = {workload.name.removeprefix("stage: "): workload for workload in models.stages(model)}
    names = "backbone and pyramid, rpn head, proposals, box head, detections, mask head, keypoint head"
    assert ", ".join(stages) == names
    detections = stages["detections"].run()
    assert detections.valid.sum() == tiny_config.test.detections
    assert stages["mask head"].run().shape[:2] == detections.labels.shape
    assert stages["backbone and pyramid"].flops() > stages["box head"].flops() > 0


def test_the_peer_trains_on_the_same_objects(tiny_config, tiny_blueprint):
    model = models.Model(tiny_config, tiny_blueprint, weights={}, image_size=(64, 64))
    objects = np.random.default_rng(0).uniform((0, 0, 30, 30), (20, 20, 64, 64), (2, 3, 4)).astype(np.float32)
    batch = models.make_batch(model, objects)
    arrays = models.peer_batch(model, batch)
    assert batch.gt.valid.sum() == 6 == arrays["labels"].size
    np.testing.assert_array_equal(batch.gt.boxes[batch.gt.valid], arrays["boxes"].reshape(-1, 4))
    areas = arrays["masks"].sum(axis=(2, 3))
    width, height = np.moveaxis(arrays["boxes"][..., 2:] - arrays["boxes"][..., :2], -1, 0)
    np.testing.assert_allclose(areas, np.pi / 4 * width * height, rtol=0.5, atol=4)  # ellipses


def test_objects_are_chosen_from_the_models_proposals(tiny_config, tiny_blueprint, tiny_weights):
    config = dataclasses.replace(tiny_config, test=dataclasses.replace(tiny_config.test, rpn_post_nms=16))
    model = models.Model(config, tiny_blueprint, tiny_weights, image_size=(64, 64))
    objects = models.choose_objects(model, 2)
    assert objects.shape == (2, tiny_config.data.max_objects, 4)
    sides = objects[..., 2:] - objects[..., :2]
    assert np.all(sides >= 64 / 20) and np.all(objects >= 0) and np.all(objects <= 64)
    assert not np.array_equal(objects[0], objects[1])


def test_an_unknown_workload_is_an_error(start):
    result = start("benchmark", "speed", "--only=roi_align,nonsense")
    assert result.returncode == 1
    assert "error: --only=nonsense: unknown workload; choose from roi_align," in result.stderr


def test_a_row_per_workload(start, tmp_path):
    path = tmp_path / "rows.json"
    result = start("benchmark", "speed", "--only=nms_64,paste_rle", "--turns=1", f"--json={path}")
    assert result.returncode == 0, result.stderr
    rows = json.loads(path.read_text())
    assert [row["workload"] for row in rows] == ["nms_64", "paste_rle"]
    assert all(row["ours_s"] > 0 and row["peer_s"] is None and row["ratio"] is None for row in rows)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [words[0] for words in lines] == ["ours:", "workload", "nms_64", "paste_rle"]
    assert lines[1] == ["workload", "ours", "reference", "ratio"]


def test_a_file_that_cannot_be_written_is_an_error_before_timing(start, tmp_path):
    result = start("benchmark", "speed", "--only=nms_64", f"--json={tmp_path}/no/rows.json")
    assert result.returncode == 1 and not result.stdout
    assert f"error: --json={tmp_path}/no/rows.json: there is no folder {tmp_path}/no" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed", "--only=nms_64", "--peer=no/python"), "--peer=no/python: there is no such program"),
        (("data", "--config=coco", "--config.data.root=no"), "no: there is no such folder (data.root)"),
        (("data", "--config=coco", "--config.data.root={here}", "--config.data.train_images=.",
          "--config.data.train_annotations=a.json", "--config.data.train_keypoints=", "--peer=no/python"),
         "--peer=no/python: there is no such program"),
        (("data", "--config=coco", "--config.data.root={here}", "--config.data.train_images=.",
          "--config.data.train_annotations=a.json", "--config.data.train_keypoints=", "--json=no/a"),
         "--json=no/a: there is no folder no"),
        (("growth", "--only=boxes", "--json=no/a"), "--json=no/a: there is no folder no"),
        (("growth", "--only=boxes", "--png=no/a"), "--png=no/a: there is no folder no"),
        (("roi", "--only=forms,pyramid", "--png=a.png"),
         "--png=a.png: there are no curves of forms, pyramid"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_error_before_timing(start, tmp_path, arguments, message):
    (tmp_path / "a.json").write_text("{}")
    result = start("benchmark", *(argument.format(here=tmp_path) for argument in arguments))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {message}\n")
