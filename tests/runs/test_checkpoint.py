import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore

from mrcnn_jax.distributed.sharding import make_mesh, replicated
from mrcnn_jax.runs.checkpoint import Checkpoints, check_arrays_match, is_untrained, load_weights


def make_weights(devices: int) -> dict[str, jax.Array]:
    weights = {
        "backbone.conv1.kernel": jax.random.normal(jax.random.key(1), (3, 3, 2)),
        "rpn.bias": jnp.arange(4, dtype=jnp.bfloat16),
    }
    return jax.device_put(weights, replicated(make_mesh(jax.devices()[:devices])))


def make_training(weights: dict[str, jax.Array]) -> dict:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(lambda step: 0.1, momentum=0.9))
    state = {
        "optimizer": optimizer.init(weights),
        "step": jnp.int32(7),
        "none": None,
    }
    return jax.device_put(state, weights["rpn.bias"].sharding)


def assert_bit_equal(actual, expected) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.fixture
def saved(tmp_path):
    """A run with checkpoints of steps 1 and 2, written by 8 devices."""
    weights = make_weights(devices=8)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, weights, make_training(weights))
        checkpoints.save(2, weights, make_training(weights))
    return tmp_path


class TestCheckpoints:
    @pytest.mark.parametrize(("writers", "readers"), [(8, 8), (8, 1), (1, 8)])
    def test_restores_bit_for_bit_on_any_number_of_devices(self, tmp_path, writers, readers):
        weights = make_weights(devices=writers)
        training = make_training(weights)
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(3, weights, training)
            like = make_weights(devices=readers)
            restored_weights, restored_training = checkpoints.restore(3, like, make_training(like))
        assert_bit_equal(restored_weights, weights)
        assert_bit_equal(restored_training, training)
        sharding = like["rpn.bias"].sharding
        for array in jax.tree.leaves((restored_weights, restored_training)):
            assert array.sharding.is_equivalent_to(sharding, array.ndim)

    def test_saving_compiles_nothing(self, tmp_path, caplog):
        """Each array is written whole, however many devices hold it; slices would be compiled by shape."""
        weights = {"fpn.kernel": jnp.zeros((8, 16), device=replicated(make_mesh()))}
        with Checkpoints(tmp_path, keep=1) as checkpoints, caplog.at_level("DEBUG", "jax"):
            jax.jit(lambda x: x + 5)(1)
            assert caplog.text.count("Compiling ") == 1
            checkpoints.save(1, weights)
            assert caplog.text.count("Compiling ") == 1

    def test_donating_arrays_after_a_save_does_not_change_it(self, tmp_path):
        step = jax.jit(lambda weights: jax.tree.map(lambda x: x + 1, weights), donate_argnums=0)
        weights = step({f"w{i}": jnp.zeros((200, 1000)) for i in range(4)})
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(1, weights, {"step": jnp.int32(1)})
            for _ in range(10):
                weights = step(weights)
        _, loaded = load_weights(tmp_path)
        assert all((np.asarray(value) == 1).all() for value in loaded.values())

    def test_keeps_the_latest_and_the_best(self, tmp_path):
        weights = make_weights(devices=1)
        metrics = {1: {"box": 10.0, "mask": 30.0}, 2: {"box": 25.0, "mask": 10.0}, 4: {"box": float("nan")}}
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            assert checkpoints.latest_step() is None
            for step in range(1, 6):
                checkpoints.save(step, weights, {"step": jnp.int32(step)}, metrics.get(step))
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "4", "5"]
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            assert checkpoints.latest_step() == 5
        assert load_weights(tmp_path)[0] == 5
        assert load_weights(tmp_path, "best")[0] == 1
        assert load_weights(tmp_path, 4)[0] == 4

    def test_saving_a_step_twice_is_an_error(self, saved):
        weights = make_weights(devices=1)
        with (
            Checkpoints(saved, keep=2) as checkpoints,
            pytest.raises(ValueError, match="step 2 already exists"),
        ):
            checkpoints.save(2, weights, {"step": jnp.int32(2)})

    def test_an_interrupted_save_does_not_count(self, saved):
        whole, cut = saved / "checkpoints" / "2", saved / "checkpoints" / "3.orbax-checkpoint-tmp"
        shutil.copytree(whole, cut)
        (cut / "weights" / "_METADATA").unlink()
        assert load_weights(saved)[0] == 2
        weights = make_weights(devices=1)
        with Checkpoints(saved, keep=2) as checkpoints:
            assert checkpoints.latest_step() == 2
            checkpoints.save(3, weights, make_training(weights))
        assert not cut.exists()
        assert load_weights(saved)[0] == 3

    def test_restoring_other_arrays_is_an_error(self, saved):
        weights = make_weights(devices=1)
        training = make_training(weights)
        with Checkpoints(saved, keep=2) as checkpoints:
            with pytest.raises(
                ValueError, match=r"checkpoints/2, weights: .*\n  1 missing: box_head\.fc6\.bias$"
            ):
                checkpoints.restore(2, {**weights, "box_head.fc6.bias": jnp.zeros(2)}, training)
            with pytest.raises(ValueError, match=r"checkpoints/2, training: .*\n  1 unexpected: step$"):
                checkpoints.restore(2, weights, {"optimizer": training["optimizer"]})

    def test_weights_without_training_state(self, tmp_path):
        weights = make_weights(devices=1)
        assert not is_untrained(tmp_path)
        with Checkpoints(tmp_path, keep=3) as checkpoints:
            checkpoints.save(0, weights)
            restored, training = checkpoints.restore(0, weights)
            assert not checkpoints.has_training(0)
        assert training is None
        assert_bit_equal(restored, weights)
        step, loaded = load_weights(tmp_path)
        assert step == 0
        assert_bit_equal(loaded, weights)
        assert is_untrained(tmp_path)
        with Checkpoints(tmp_path, keep=3) as checkpoints:
            checkpoints.save(1, weights, {"step": jnp.int32(1)})
            checkpoints.wait()
            assert checkpoints.has_training(1)
        assert not is_untrained(tmp_path)

    def test_two_leaves_with_the_same_path_are_an_error(self, tmp_path):
        with (
            Checkpoints(tmp_path, keep=1) as checkpoints,
            pytest.raises(ValueError, match="same dotted path"),
        ):
            checkpoints.save(1, {}, {"a.b": jnp.int32(1), "a": {"b": jnp.int32(1)}})


LOAD = """
import sys, jax
from mrcnn_jax.runs.checkpoint import load_weights
assert jax.device_count() == 1
try:
    step, weights = load_weights(sys.argv[1])
    print(step, {name: float(value.sum()) for name, value in sorted(weights.items())})
except ValueError as error:
    print(error)
"""


def load_in_a_process_with_one_device(workdir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOAD, str(workdir)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


class TestLoadWeights:
    def test_in_a_process_with_one_device(self, saved):
        done = load_in_a_process_with_one_device(saved)
        assert done.stderr == ""
        sums = {name: float(value.sum()) for name, value in sorted(make_weights(devices=1).items())}
        assert done.stdout == f"2 {sums}\n"

    def test_without_the_training_state(self, saved):
        shutil.rmtree(saved / "checkpoints" / "2" / "training")
        step, weights = load_weights(saved)
        assert step == 2
        assert_bit_equal(weights, make_weights(devices=1))

    def test_no_checkpoint_yet(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="checkpoints: there is no checkpoint yet"):
            load_weights(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_step_is_an_error(self, saved):
        with pytest.raises(ValueError, match=r"no checkpoint of step 7, only of \[1, 2\]"):
            load_weights(saved, 7)

    def test_no_best_without_metrics(self, saved):
        with pytest.raises(ValueError, match="no checkpoint was evaluated"):
            load_weights(saved, "best")

    def test_damaged_metadata_names_the_checkpoint(self, saved):
        cut_in_half(saved / "checkpoints" / "2" / "weights" / "_METADATA")
        with pytest.raises(ValueError, match=r"checkpoints/2: the checkpoint is damaged .* from step 1"):
            load_weights(saved)
        assert load_weights(saved, 1)[0] == 1

    def test_damaged_arrays_name_the_checkpoint(self, saved):
        # In a separate process, because orbax leaves threads behind that complain later.
        cut_in_half(saved / "checkpoints" / "2" / "weights" / "manifest.ocdbt")
        done = load_in_a_process_with_one_device(saved)
        assert f"{saved}/checkpoints/2: the checkpoint is damaged" in done.stdout


class TestStrangers:
    """Checkpoints made to read other files, or to fill the memory."""

    def test_arrays_elsewhere(self, saved):
        change(saved, lambda content: content.replace('"backbone.conv1.kernel"', '"/etc/arrays"'))
        with pytest.raises(ValueError, match=r"_METADATA: '/etc/arrays' is not the name of an array\); "):
            load_weights(saved)

    def test_arrays_outside_of_the_database(self, saved):
        change(saved, lambda content: content.replace('"use_ocdbt": true', '"use_ocdbt": false'))
        with pytest.raises(ValueError, match=r"_METADATA: the arrays are not in OCDBT files of this folder"):
            load_weights(saved)

    def test_metadata_nested_too_deeply(self, saved):
        change(saved, lambda content: "[" * 100_000)
        with pytest.raises(ValueError, match="the checkpoint is damaged"):
            load_weights(saved)

    def test_only_links_to_files_are_followed(self, saved, tmp_path_factory):
        item, elsewhere = saved / "checkpoints" / "2" / "weights", tmp_path_factory.mktemp("elsewhere")
        (item / "manifest.ocdbt").rename(elsewhere / "blob")
        (item / "manifest.ocdbt").symlink_to(elsewhere / "blob")  # as in the cache of the Hugging Face Hub
        assert_bit_equal(load_weights(saved)[1], make_weights(devices=1))
        (item / "more").symlink_to(elsewhere)
        with pytest.raises(ValueError, match="weights/more is a link to a folder"):
            load_weights(saved)
        (item / "more").unlink()
        os.mkfifo(item / "pipe")
        with pytest.raises(ValueError, match="weights/pipe is not a regular file"):
            load_weights(saved)

    @pytest.mark.parametrize("file", ["_CHECKPOINT_METADATA", "metrics/metrics"])
    def test_metadata_of_a_checkpoint_that_never_end(self, saved, file):
        """orbax reads those of all checkpoints, before any of them is chosen."""
        path = saved / "checkpoints" / "2" / file
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero")
        for use in (load_weights, is_untrained, partial(Checkpoints, keep=1)):
            with pytest.raises(ValueError, match=f"checkpoints/2/{file} is not a regular file"):
                use(saved)

    @pytest.mark.parametrize(
        "changes", [{"shape": [10**6, 10**6], "chunks": [100, 100]}, {"shape": [4], "chunks": [10**12]}]
    )
    def test_arrays_far_larger_than_their_files(self, saved, changes):
        """What was never written is filled in, and a chunk is decompressed as a whole."""
        item = saved / "checkpoints" / "2" / "weights"
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{item}/"}).result()
        array = json.loads(store.read("rpn.bias/.zarray").result().value) | changes
        store.write("rpn.bias/.zarray", json.dumps(array).encode()).result()
        with pytest.raises(
            ValueError, match=r"its arrays take 2\d{12} bytes, but its files have only \d{4}\);"
        ):
            load_weights(saved)

    def test_zeros_may_be_compressed_to_nearly_nothing(self, tmp_path):
        weights = {"kernel": jnp.zeros((1000, 1000))}
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(1, weights)
        assert_bit_equal(load_weights(tmp_path)[1], weights)

    def test_metrics_that_are_no_numbers(self, saved):
        weights = make_weights(devices=1)
        with Checkpoints(saved, keep=2) as checkpoints:
            checkpoints.save(3, weights, metrics={"box": 1.0})
        for content in ('{"box": "high"}', "{}", '{"box": null}'):
            (path,) = (saved / "checkpoints" / "3" / "metrics").glob("metrics")
            path.write_text(content)
            assert load_weights(saved)[0] == 3


def change(saved: Path, edit) -> None:
    path = saved / "checkpoints" / "2" / "weights" / "_METADATA"
    path.write_text(edit(path.read_text()))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_check_arrays_match_reports_everything():
    wanted = {"a": np.zeros(2), "b": np.zeros((2, 3)), "c": np.zeros(1)}
    check_arrays_match(wanted, dict(reversed(wanted.items())), source="x.npz")
    with pytest.raises(ValueError) as error:
        check_arrays_match(
            wanted, {"a": np.zeros(2), "b": np.zeros((3, 2)), "d": np.zeros(1)}, source="x.npz"
        )
    assert str(error.value).splitlines() == [
        "x.npz: the arrays do not fit the model",
        "  1 missing: c",
        "  1 unexpected: d",
        "  1 of another shape: b is (3, 2), must be (2, 3)",
    ]


def test_check_arrays_match_lists_one_array_per_line():
    with pytest.raises(ValueError) as error:
        check_arrays_match({str(i): np.zeros(1) for i in range(12)}, {}, source="x.npz")
    _, first, *others = str(error.value).splitlines()
    assert first == "  12 missing: 0"
    assert others == [" " * len("  12 missing: ") + str(i) for i in range(1, 12)]
