"""Test process settings, made before anything imports JAX, and fixtures that many tests share."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.run_command import Outcome, run_here

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
xla_flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
# Others may abort on flags that they do not know, and compilers for other chips need the passes of XLA.
if version("jaxlib").startswith(("0.10.", "0.12.")) and find_spec("jax_plugins") is None:
    # Eight devices on two cores can wait for each other longer than XLA's default timeout.
    xla_flags.append("--xla_cpu_collective_call_terminate_timeout_seconds=600")
    # Those of compiler_options in mrcnn_jax/runtime/compilations.py, for the tests' own programs, too.
    xla_flags.append("--xla_cpu_experimental_ynn_fusion_type=")
    xla_flags.append("--xla_cpu_enable_concurrency_optimized_scheduler=false")
    xla_flags.append("--xla_disable_hlo_passes=cse_barrier_expander")
    # Compiling takes most of the tests' time: with these it is a third. Scripts in separate processes have
    # their programs optimised.
    xla_flags.append("--xla_backend_optimization_level=0")
    xla_flags.append("--xla_cpu_parallel_codegen_split_count=1")
    if version("jaxlib").startswith("0.10."):
        xla_flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(xla_flags)
# Compiled programs are shared between workers and kept for later runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


# Test files that run the tiny model: one worker traces and compiles its programs for all of them.
TINY_MODEL = {
    "tests/training/test_step.py",
    "tests/training/test_loop.py",
    "tests/training/test_loop_processes.py",
    "tests/training/test_precise_bn.py",
    "tests/commands/test_commands.py",
    "tests/inference/test_load.py",
    "tests/export/test_models.py",
    "tests/serving/test_app.py",
}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Gives each worker whole files, and those of ``TINY_MODEL`` to one worker."""

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tiny model" if file in TINY_MODEL else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves what takes longest to the beginning, so that no worker is left with it at the end."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in TINY_MODEL)


def pytest_collection_finish() -> None:
    """What the imports have made, which is much, is not searched for garbage again."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Checks every call of an annotated function at run time, except the construction of pytrees.

    JAX also constructs pytrees with leaves that are not arrays; jaxtyping skips classes marked as below.
    """
    from flax import struct

    packages = "ops", "models", "training", "inference", "runtime", "distributed"
    install_import_hook([f"mrcnn_jax.{package}" for package in packages], "beartype.beartype")
    make_pytree = struct.dataclass

    def make_unchecked_pytree(cls: type) -> type:
        pytree = make_pytree(cls)
        pytree.__no_type_check__ = True
        return pytree

    struct.dataclass = make_unchecked_pytree


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary home directory, so that tests and their subprocesses leave the user's cache alone."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))
        yield path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of data and weights beside the repository; skips the test if it is absent."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the data in {path}")
    return path


@pytest.fixture(scope="module")
def start(directory: Path) -> Callable[..., Outcome]:
    """Runs a command of ``mrcnn-jax`` in the module's ``directory`` (``run_command.run_here``)."""
    return partial(run_here, directory=directory)


@pytest.fixture(scope="session")
def tiny_config():
    """Config of a complete Mask R-CNN with keypoints that compiles in seconds; images are 64x64 pixels."""
    from mrcnn_jax.config import Config, DataConfig, ModelConfig, TestConfig, TrainConfig

    return Config(
        model=ModelConfig(
            backbone_depth=18,
            backbone_width=8,
            backbone_norm="batch",
            backbone_frozen_stages=1,
            fpn_channels=16,
            anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0),
            roi_canonical_size=32.0,
            box_channels=16,
            mask_convs=1,
            mask_channels=8,
            keypoint=True,
            keypoint_convs=1,
            keypoint_channels=8,
        ),
        data=DataConfig(
            train_images="train",
            train_annotations="annotations/instances_train.json",
            val_images="val",
            val_annotations="annotations/instances_val.json",
            train_short_sides=(64,),
            test_short_side=64,
            long_side=64,
            canvases=((64, 64),),
            max_objects=4,
            mask_grid=28,
        ),
        train=TrainConfig(
            steps=4,
            batch_size=8,
            warmup_steps=2,
            decay_steps=(),
            rpn_samples=16,
            rpn_pre_nms=32,
            rpn_post_nms=16,
            roi_samples=16,
            log_every=2,
            checkpoint_every=2,
        ),
        # An untrained model is never confident, so every score is kept.
        test=TestConfig(rpn_pre_nms=32, rpn_post_nms=16, candidates=64, detections=8, score_threshold=0.0),
    )


@pytest.fixture(scope="session")
def tiny_blueprint(tiny_config):
    """The tiny model's structure, with the 4 categories and 9 keypoints of the shapes dataset."""
    from mrcnn_jax.models.variables import make_blueprint

    return make_blueprint(tiny_config.model, num_classes=4, num_keypoints=9)


@pytest.fixture(scope="session")
def tiny_weights(tiny_blueprint):
    """Random weights for the tiny model."""
    import jax

    return tiny_blueprint.initialize(jax.random.key(0))


@pytest.fixture
def eight_devices():
    """Skips the test where there are fewer, as on a machine with a GPU (scripts/on_gpu.sh)."""
    import jax

    if jax.device_count() < 8:
        pytest.skip(f"needs 8 devices; there are {jax.device_count()}")


@pytest.fixture
def on_cpu():
    """Programs are traced for a CPU alone, which takes half of the time (``by_platform``)."""
    import jax

    from mrcnn_jax.distributed.sharding import make_mesh

    with jax.set_mesh(make_mesh(jax.devices()[:1])):
        yield


@pytest.fixture(scope="module")
def drawn_eagerly():
    """Initial weights without compiling a program for each model: single operations are shared by models."""
    from mrcnn_jax.models.variables import Blueprint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blueprint, "draw", Blueprint.initialize)
        yield


@pytest.fixture(scope="session")
def programs():
    """What ``shared_programs`` has made, by function, model and settings."""
    return {}


@pytest.fixture(scope="module")
def shared_programs(programs, drawn_eagerly):
    """Runs and detectors of the same model and settings share their traced programs."""
    from mrcnn_jax.config.fields import SETTINGS
    from mrcnn_jax.inference import detector, proposer
    from mrcnn_jax.training import loop, monitor

    def is_free(name):
        return SETTINGS[name].decides == "neither" and SETTINGS[name].resumable

    def share(make):
        section = "train" if make.__name__ == "compile_step" else "test"

        def find(blueprint, config, mesh, *counts):
            model = blueprint.config, blueprint.num_classes, blueprint.num_keypoints, counts
            read = {n: v for n, v in vars(getattr(config, section)).items() if not is_free(f"{section}.{n}")}
            key = repr((make.__name__, model, read, config.data.canvases, mesh))
            if key not in programs:
                programs[key] = make(blueprint, config, mesh, *counts)
            return programs[key]

        return find

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_step", share(loop.compile_step))
        patch.setattr(monitor, "make_predict_fn", share(monitor.make_predict_fn))
        patch.setattr(detector, "make_predict_fn", share(detector.make_predict_fn))
        patch.setattr(monitor, "make_propose_fn", share(monitor.make_propose_fn))
        patch.setattr(proposer, "make_propose_fn", share(proposer.make_propose_fn))
        yield


@pytest.fixture(scope="session")
def tiny_batch():
    """Eight images of noise, each with three objects and a fourth row that is not valid."""
    import numpy as np

    from mrcnn_jax.types import Batch, GroundTruth

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (8, 4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 34, (8, 4, 2))], axis=-1)
    keypoints = rng.uniform(corner[:, :, None], boxes[:, :, None, 2:], (8, 4, 9, 2))
    visibility = rng.integers(0, 3, (8, 4, 9, 1))
    return Batch(
        images=rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8),
        image_sizes=np.full((8, 2), 64, np.int32),
        ids=None,
        gt=GroundTruth(
            boxes=boxes.astype(np.float32),
            labels=rng.integers(1, 5, (8, 4), dtype=np.int32),
            crowd=np.zeros((8, 4), bool),
            valid=np.tile([True, True, True, False], (8, 1)),
            masks=rng.integers(0, 2, (8, 4, 28, 28), dtype=np.uint8),
            mask_boxes=boxes.astype(np.float32),
            keypoints=np.concatenate([keypoints, visibility], axis=-1).astype(np.float32),
        ),
    )


@pytest.fixture(scope="session")
def torchvision_backbone():
    """The script ``torchvision_backbone.py``, for its ``seeded`` weights, and the arrays that it wrote."""
    import importlib.util

    import numpy as np

    path = Path(__file__).parent / "fixtures" / "torchvision_backbone.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with np.load(path.with_suffix(".npz")) as archive:
        return script, dict(archive)
