"""Compares RoIAlign, in all its forms, with RoIPool and RoIWarp: time, memory and misalignment.

    mrcnn-jax benchmark roi --json=roi.json --png=roi.png
    mrcnn-jax benchmark roi --only=regions,side,channels,output

Features and regions are synthetic; it takes five minutes on two CPU cores. Each row is one program:
"forward", or "both" with the gradient of the features. "MB" is the program's memory without inputs and
results. "copy" is its fraction of a large copy's bandwidth, counting all maps and results once; small ones
that fit in a cache may exceed 100 %.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from mrcnn_jax import command_line
from mrcnn_jax.runtime.compilations import compiler_options
from mrcnn_jax.runtime.setup import setup

STUDIES = ("forms", "pyramid", "regions", "side", "channels", "output", "misalignment")
_CURVES = ("regions", "side", "channels", "output")
_ONLY = flags.DEFINE_list("only", list(STUDIES), "studies to run")
_TURNS = flags.DEFINE_integer("turns", 5, "runs of each program; medians are reported", lower_bound=1)
_SCALE = flags.DEFINE_float("scale", 1.0, "scale of the maps' sides: less for a trial", lower_bound=0.01)
_JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
_PNG = flags.DEFINE_string("png", None, "file to draw curves to")


@dataclasses.dataclass(frozen=True)
class Case:
    """One program: its pooling op and its inputs."""

    pooling: str  # "align mean", "align max", "warp mean" or "pool"
    ratio: int = 2  # sampling points per bin and axis, 0 for adaptive
    form: str | None = None  # of RoIAlign; None for the platform's
    gradient: bool = False
    regions: int = 256
    sides: tuple[float, float] = (16.0, 512.0)  # range in pixels, log-uniform
    channels: int = 256
    output: int = 7
    levels: tuple[int, ...] = (2,)  # of an image of 800 x 1344 pixels, with strides of 2 ** level

    def title(self) -> str:
        name = f"RoI{self.pooling.capitalize()}"
        if self.pooling == "pool":
            return name
        return f"{name}, {self.ratio or 'adaptive'}" + (f", {self.form}" if self.form else "")


METHODS = (Case("align mean", 2), Case("align mean", 0), Case("warp mean", 2), Case("pool"))
FORMS = (
    *(
        Case(f"align {reduction}", ratio, form)
        for reduction in ("mean", "max")
        for ratio in (2, 0)
        for form in ("cached", "gather", "windows", "einsum")
        if (reduction, form) != ("max", "windows") and (reduction, ratio, form) != ("max", 0, "einsum")
    ),
    Case("warp mean", 2),
    Case("pool"),
)


def forms() -> list[Case]:
    """The forms that this machine compiles: the kernels of "windows" would be interpreted without a TPU."""
    import jax

    return [case for case in FORMS if case.form != "windows" or jax.default_backend() == "tpu"]


def cases(study: str) -> list[Case]:
    """The programs of a study, forward only and with the gradient."""
    if study == "forms":
        found = [dataclasses.replace(case, regions=128, levels=(3,)) for case in forms()]
    elif study == "pyramid":
        found = [dataclasses.replace(case, regions=128, levels=(2, 3, 4, 5)) for case in forms()]
        found += [dataclasses.replace(case, regions=1000, levels=(2, 3, 4, 5)) for case in METHODS]
    else:
        changes: dict[str, list[dict[str, Any]]] = {
            "regions": [{"regions": n} for n in (64, 256, 1024)],
            "side": [{"sides": (s, s)} for s in (32.0, 128.0, 512.0)],
            "channels": [{"channels": n} for n in (64, 256, 1024)],
            "output": [{"output": n} for n in (3, 7, 14)],
        }
        found = [dataclasses.replace(m, **change) for change in changes[study] for m in METHODS]
    return [dataclasses.replace(case, gradient=gradient) for case in found for gradient in (False, True)]


def main(_: list[str]) -> None:
    unknown = sorted(set(_ONLY.value) - set(STUDIES))
    if unknown:
        raise ValueError(f"--only={','.join(unknown)}: unknown; choose from {', '.join(STUDIES)}")
    if _PNG.value and not set(_ONLY.value) & {*_CURVES, "misalignment"}:
        raise ValueError(f"--png={_PNG.value}: there are no curves of {', '.join(_ONLY.value)}")
    for flag, value in (("json", _JSON.value), ("png", _PNG.value)):
        if value:
            command_line.check_output(flag, Path(value))
    setup()
    import jax

    from mrcnn_jax.benchmarks.peak import copy_peak
    from mrcnn_jax.json_files import write_json

    jax.config.update("jax_enable_compilation_cache", False)  # a cache hit would be timed as compilation
    bandwidth = copy_peak()
    device = jax.devices()[0]
    print(f"{device.platform}, {device.device_kind}: a large copy moves {bandwidth / 1e9:.1f} GB/s")
    numbers: dict[str, Any] = {"device": device.device_kind, "copy_gb_per_s": bandwidth / 1e9}
    for study in _ONLY.value:
        if study == "misalignment":
            numbers[study] = misalignment()
            print_misalignment(numbers[study])
        else:
            numbers[study] = measure(study, bandwidth)
        if _JSON.value:  # after every study, as later ones may be cut off
            write_json(Path(_JSON.value), numbers)
    if _PNG.value:
        draw(numbers, Path(_PNG.value))


def run_time(program: Callable[..., Any], operands: tuple[Any, ...]) -> float:
    import jax

    start = time.perf_counter()
    jax.block_until_ready(program(*operands))
    return time.perf_counter() - start


def measure(study: str, bandwidth: float) -> list[dict[str, Any]]:
    """The rows of a study, also printed. Programs alternate, so that all see the same machine load."""
    print(f"\n{study:<32} {'regions':>7} {'sides':>8} {'channels':>8} {'out':>4}", end="")
    print(f"  {'':<8}{'compile s':>9} {'ms':>9} {'MB':>7} {'copy':>6}", flush=True)
    programs = [build(case) for case in cases(study)]
    times: list[list[float]] = [[] for _ in programs]
    for _turn in range(_TURNS.value):
        for (program, operands, _numbers), own in zip(programs, times, strict=True):
            own.append(run_time(program, operands))
    rows = []
    for case, (_program, _operands, numbers), own in zip(cases(study), programs, times, strict=True):
        seconds = statistics.median(own)
        row = dataclasses.asdict(case) | numbers | {"ms": 1000 * seconds}
        row["copy"] = numbers["least_bytes"] / seconds / bandwidth
        rows.append(row)
        sides = "-".join(f"{side:.0f}" for side in sorted(set(case.sides)))
        print(
            f"{case.title():<32} {case.regions:>7} {sides:>8} {case.channels:>8} {case.output:>4}  "
            f"{'both' if case.gradient else 'forward':<8}{row['compile_s']:9.2f} {row['ms']:9.2f} "
            f"{row['temporary_bytes'] / 1e6:7.1f} {row['copy']:6.1%}"
        )
    return rows


def build(case: Case) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, float]]:
    """The compiled and warmed-up program, its operands, and its compile time, memory and least bytes."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mrcnn_jax.benchmarks.workloads.ops import random_boxes
    from mrcnn_jax.ops.roi_align import multilevel_roi_align
    from mrcnn_jax.ops.roi_pool import multilevel_roi_pool
    from mrcnn_jax.ops.roi_warp import multilevel_roi_warp

    rng = np.random.default_rng(0)
    image = np.array([800, 1344]) * _SCALE.value
    maps = {}
    for level in case.levels:
        height, width = np.maximum(image / 2**level, 1).astype(int)
        maps[f"p{level}"] = jnp.asarray(rng.standard_normal((height, width, case.channels), np.float32))
    boxes = jnp.asarray(random_boxes(rng, case.regions, sides=case.sides, image_size=tuple(image)))

    def pool(maps: dict[str, jax.Array]) -> jax.Array:
        if case.pooling == "pool":
            return multilevel_roi_pool(maps, boxes, output_size=case.output)
        method, reduction = case.pooling.split()
        options: dict[str, Any] = {"output_size": case.output, "sampling_ratio": case.ratio}
        options |= {"reduction": reduction, "form": case.form}
        if method == "warp":
            return multilevel_roi_warp(maps, boxes, **options)
        return multilevel_roi_align(maps, boxes, aligned=True, **options)

    def both(maps: dict[str, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        pooled, transpose = jax.vjp(pool, maps)
        return pooled, transpose(cotangent)[0]

    result = jnp.ones((case.regions, case.output, case.output, case.channels), jnp.float32)
    operands: tuple[Any, ...] = (maps, result) if case.gradient else (maps,)
    start = time.perf_counter()
    options = compiler_options(jax.devices()[0])
    program = jax.jit(both if case.gradient else pool, compiler_options=options).lower(*operands).compile()
    compile_s = time.perf_counter() - start
    run_time(program, operands)
    memory = program.memory_analysis()
    # Maps and results once, and once more for the gradient.
    least = (sum(m.nbytes for m in maps.values()) + result.nbytes) * (1 + case.gradient)
    return (
        program,
        operands,
        {
            "compile_s": compile_s,
            "temporary_bytes": memory.temp_size_in_bytes if memory else float("nan"),
            "least_bytes": least,
        },
    )


def misalignment() -> list[dict[str, float]]:
    """The distance along x, in pixels, from a bin's centre to the centre of what it pools: mean and maximum.

    The features are the cells' positions, a ramp. The exact integral of its bilinear interpolation over a bin
    is the bin's centre, and so is the mean of RoIAlign's points. For RoIWarp, the centre is the mean of its
    points, and for RoIPool the midpoint of the bin's first and last cells, which are the maxima of the ramp
    and of its negative. Cell k lies at k strides, as all three assume without half-pixel centres; "half_cell"
    is RoIAlign that wrongly assumes them.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mrcnn_jax.benchmarks.workloads.ops import random_boxes
    from mrcnn_jax.ops.roi_align import roi_align
    from mrcnn_jax.ops.roi_pool import roi_pool
    from mrcnn_jax.ops.roi_warp import roi_warp

    size, bins = 340, 7
    ramp = jnp.broadcast_to(jnp.arange(size, dtype=jnp.float32)[:, None], (size, size, 1))
    options: dict[str, Any] = {"stride": 1.0, "output_size": bins}

    @jax.jit
    def centres(boxes: jax.Array) -> tuple[jax.Array, ...]:
        ends = roi_pool(jnp.concatenate([-ramp, ramp], axis=-1), boxes, **options)
        points = (
            roi_align(ramp, boxes, sampling_ratio=2, aligned=aligned, **options)[..., 0]
            for aligned in (False, True)
        )
        warp = roi_warp(ramp, boxes, sampling_ratio=2, **options)[..., 0]
        return (ends[..., 1] - ends[..., 0]) / 2, warp, *points

    rows = []
    for stride in (4, 8, 16, 32):
        generator = np.random.default_rng(0)
        boxes = random_boxes(generator, 1000, sides=(32, 512), image_size=(1344, 1344)) / stride
        width = (boxes[:, 2] - boxes[:, 0])[:, None, None] / bins
        exact = boxes[:, :1, None] + (np.arange(bins) + 0.5) * width
        names = "pool", "warp", "align", "half_cell"
        errors = [np.abs(m - exact) * stride for m in centres(jnp.asarray(boxes))]
        rows.append(
            {"stride": stride}
            | {
                f"{name}_{key}": float(f(values))
                for name, values in zip(names, errors, strict=True)
                for key, f in (("mean", np.mean), ("largest", np.max))
            }
        )
    return rows


def print_misalignment(rows: list[dict[str, float]]) -> None:
    columns = {"pool": "RoIPool", "warp": "RoIWarp", "align": "RoIAlign", "half_cell": "half a cell off"}
    print(f"\n{'misalignment, pixels':<22}" + "".join(f"{title:>18}" for title in columns.values()))
    print(f"{'stride':<22}" + f"{'mean  largest':>18}" * len(columns))
    for row in rows:
        pairs = (f"{row[f'{name}_mean']:.3f}  {row[f'{name}_largest']:7.3f}" for name in columns)
        print(f"{row['stride']:<22}" + "".join(f"{pair:>18}" for pair in pairs))


def draw(numbers: dict[str, Any], path: Path) -> None:
    """Draws a panel for every study that has curves."""
    from mrcnn_jax.benchmarks.curves import Panel, draw_panels

    panels = []
    for study in _CURVES:
        for gradient in (False, True):
            curves: dict[str, list[tuple[float, float]]] = {}
            for row in numbers.get(study, []):
                if row["gradient"] == gradient:
                    x = row["sides"][0] if study == "side" else row[study]
                    curves.setdefault(Case(row["pooling"], row["ratio"]).title(), []).append((x, row["ms"]))
            if curves:
                title = "forward and gradient" if gradient else "forward"
                panels.append(Panel(f"milliseconds, {title}, by {study}", curves))
    if rows := numbers.get("misalignment"):
        curves = {
            f"{title}, {key}": [(row["stride"], row[f"{name}_{key}"]) for row in rows]
            for name, title in (("pool", "RoIPool"), ("warp", "RoIWarp"))
            for key in ("mean", "largest")
        }
        panels.append(Panel("misalignment in pixels, by stride (RoIAlign: none)", curves))
    draw_panels(panels, path)
