"""The chips that programs can be compiled for without having one, and their limits.

Memory, bandwidth and peak rates are those of Google's and NVIDIA's data sheets; an XLA device is a chip, of
v4 and v5p with both of its cores.
"""

import dataclasses
import os
import re
from importlib.util import find_spec

import numpy as np


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip's limits."""

    memory: int  # bytes
    bandwidth: float  # bytes per second
    clock: float  # cycles per second
    options: tuple[tuple[str, str], ...] = ()  # what libtpu must know besides the topology


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """An NVIDIA GPU, with what XLA needs to know to compile for it."""

    name: str = ""
    capability: int = 9  # compute capability: 9 for sm_90
    cores: int = 0  # streaming multiprocessors
    units_per_core: int = 128  # of float32
    shared_memory: int = 0  # bytes per core
    cache: int = 0  # bytes of the second level
    bfloat16_rate: float = 0.0  # floating point operations per second of matmuls
    float32_rate: float = 0.0  # likewise, with TF32, which XLA uses unless asked for more precision

    @property
    def target_config(self) -> str:
        """The text of XLA's ``GpuTargetConfigProto``."""
        return f"""\
gpu_device_info {{
  cuda_compute_capability {{ major: {self.capability} }}
  core_count: {self.cores}
  fpus_per_core: {self.units_per_core}
  clock_rate_ghz: {self.clock / 1e9}
  memory_bandwidth: {self.bandwidth:.0f}
  device_memory_size: {self.memory}
  l2_cache_size: {self.cache}
  shared_memory_per_core: {self.shared_memory}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {self.shared_memory - 1024}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{self.name}"
"""


_MEGACORE = (("chip_config_name", "megacore"),)
_GB, _GIB = 10**9, 2**30

CHIPS: dict[str, Chip] = {
    "v4": Chip(32 * _GIB, 1228e9, 1.05e9, _MEGACORE),
    "v5e": Chip(16 * _GIB, 819e9, 1.5e9),
    "v5p": Chip(95 * _GIB, 2765e9, 1.75e9, _MEGACORE),
    "v6e": Chip(32 * _GIB, 1640e9, 1.75e9),
    "a100": Gpu(
        memory=80 * _GB,
        bandwidth=2039e9,
        bfloat16_rate=312e12,
        float32_rate=156e12,
        clock=1.41e9,
        name="NVIDIA A100-SXM4-80GB",
        capability=8,
        cores=108,
        units_per_core=64,
        shared_memory=167_936,
        cache=40 * 2**20,
    ),
    "h100": Gpu(
        memory=80 * _GB,
        bandwidth=3352e9,
        bfloat16_rate=989e12,
        float32_rate=494e12,
        clock=1.98e9,
        name="NVIDIA H100 80GB HBM3",
        cores=132,
        shared_memory=233_472,
        cache=50 * 2**20,
    ),
    "h200": Gpu(
        memory=141 * _GB,
        bandwidth=4800e9,
        bfloat16_rate=989e12,
        float32_rate=494e12,
        clock=1.98e9,
        name="NVIDIA H200",
        cores=132,
        shared_memory=233_472,
        cache=50 * 2**20,
    ),
}

# A TPU's axes, of which v4 and v5p have three.
_TOPOLOGY = re.compile(r"(?P<chip>\w+)(?::(?P<shape>\d+(?:x\d+){0,2}))?")


@dataclasses.dataclass(frozen=True)
class Topology:
    """Connected chips of one kind: ``Topology.parse("v5e:4x4")``, "h100" for one, "h100:8" for eight."""

    name: str  # of the chip
    shape: tuple[int, ...]

    @staticmethod
    def parse(text: str) -> "Topology":
        """Raises ValueError, with the rule, for anything that is no topology."""
        found = _TOPOLOGY.fullmatch(text)
        shape = tuple(int(n) for n in ((found and found["shape"]) or "1").split("x"))
        if not found or found["chip"] not in CHIPS or 0 in shape:
            raise ValueError(
                f"topology {text!r}: must be a chip ({', '.join(CHIPS)}), of a TPU with its shape, such as "
                "v5e:4x4, of a GPU with their number if there are several, such as h100:8"
            )
        if isinstance(CHIPS[found["chip"]], Gpu) and len(shape) != 1:
            raise ValueError(f"topology {text!r}: of a GPU give the number, such as {found['chip']}:8")
        return Topology(found["chip"], shape)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name]

    @property
    def count(self) -> int:
        return int(np.prod(self.shape))

    def __str__(self) -> str:
        return f"{self.count} x {self.name}" if self.count > 1 else self.name

    def devices(self) -> list:
        """JAX's devices, to compile for; they cannot run anything.

        Raises ValueError if the library that compiles for them is not installed, or knows no such shape.
        """
        from jax.experimental import topologies

        try:
            if isinstance(self.chip, Gpu):
                found = topologies.get_topology_desc(
                    platform="cuda", target_config=self.chip.target_config, topology=f"1x1x{self.count}"
                )
            else:
                found = topologies.get_topology_desc(
                    platform="tpu", topology_name=f"{self.name}:{_of_hosts(self)}", **dict(self.chip.options)
                )
        except (RuntimeError, ModuleNotFoundError) as error:
            package, module = "libtpu", "libtpu"
            if isinstance(self.chip, Gpu):
                package, module = "jax-cuda12-plugin", "jax_plugins"
            message = f"cannot compile for {self}: {error}"
            if find_spec(module) is None:
                message += (
                    f"\nit takes {package} of the same version of JAX, in an environment of its own; in a "
                    "clone, make test-compilers makes it, as .venv-compilers (docs/accelerators.md)"
                )
            raise ValueError(message) from error
        return list(found.devices)[: self.count]


def _of_hosts(topology: Topology) -> str:
    """The shape of the smallest whole topology that libtpu knows with these chips, as "2x2"."""
    axes = 3 if topology.chip.options else 2
    shape = [*topology.shape, *[1] * axes][:axes]
    smallest = (2, 2, 1)[:axes]
    return "x".join(str(max(n, least)) for n, least in zip(shape, smallest, strict=True))


def prepare_environment() -> None:
    """Sets what compiling for absent chips needs, before JAX is imported: no device is looked for."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    # libtpu would ask Google's metadata server what machine this is, and lock out a second process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # These two only silence its warnings.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
