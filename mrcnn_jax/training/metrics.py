"""The metrics of a run, averaged for the step line and TensorBoard, and checked for NaN."""

import itertools
import math
import time
from collections.abc import Mapping

import jax
import numpy as np
from jax import Array

# The losses of each stage, classification before regression: "rpn 0.04+0.03" in the line of a step.
STAGES = {
    "rpn": ("rpn_objectness", "rpn_box"),
    "box": ("box_class", "box"),
    "mask": ("mask",),
    "keypoint": ("keypoint",),
}
_SLOW_DATA = 0.1  # share of time spent waiting for data from which the line reports it


def _stages(losses: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """``STAGES``, and after the box head the further ones of a cascade, "box2" and so on."""
    stages: dict[str, tuple[str, ...]] = {}
    for stage, names in STAGES.items():
        stages[stage] = names
        if stage == "box":
            numbers = itertools.takewhile(lambda number: f"box_{number}" in losses, itertools.count(2))
            stages |= {f"box{number}": (f"box_class_{number}", f"box_{number}") for number in numbers}
    return stages


def format_losses(losses: Mapping[str, float]) -> str:
    """The sum of the losses and then each stage's: "loss 2.11  rpn 0.04+0.03 box 0.52+0.33 mask 1.19"."""
    stages = {
        stage: "+".join(f"{losses[name]:.2f}" for name in names if name in losses)
        for stage, names in _stages(losses).items()
    }
    shown = " ".join(f"{stage} {values}" for stage, values in stages.items() if values)
    return f"loss {losses['loss']:.2f}  {shown}"


class StepLog:
    """Collects every step's metrics on the device, and reads them only when a line is due."""

    def __init__(self, *, total_steps: int, batch_size: int) -> None:
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._pending: list[tuple[int, dict[str, Array]]] = []
        self._timed = 0  # steps since the clock was started
        self._waited = 0.0
        self._since = time.perf_counter()

    def add(self, step: int, metrics: dict[str, Array], *, waited: float) -> None:
        """Adds a step's metrics, without reading them, and the seconds it ``waited`` for data."""
        self._pending.append((step, metrics))
        self._timed += 1
        self._waited += waited

    def flush(self) -> tuple[str, dict[str, float]]:
        """A line for the terminal, and the metrics' means since the last flush; waits for the metrics.

        Raises:
            FloatingPointError: a loss is not finite; the message names the first such step and its losses.
        """
        steps = [step for step, _ in self._pending]
        values = jax.device_get([metrics for _, metrics in self._pending])
        self._pending = []
        for step, metrics in zip(steps, values, strict=True):
            check_finite(step, metrics)
        means = {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}
        means["lr"] = float(values[-1]["lr"])

        parts = [
            f"step {steps[-1]:>{len(str(self._total_steps))}}/{self._total_steps}",
            format_losses(means),
            f"lr {means['lr']:.2g}",
        ]
        timed, waited = self._timed, self._waited
        seconds = self.restart_clock()
        if timed:
            rate = timed / seconds
            means["images_per_second"] = rate * self._batch_size
            means["waiting_for_data"] = waited / seconds
            images = means["images_per_second"]
            parts.append(f"{images:.{0 if images >= 10 else 1}f} img/s")
            if means["waiting_for_data"] >= _SLOW_DATA:
                parts.append(f"{means['waiting_for_data']:.0%} waiting for data")
            parts.append(f"eta {_clock((self._total_steps - steps[-1]) / rate)}")
        return "  ".join(parts), means

    def settle(self) -> None:
        """Waits for the steps added so far, so that their time is not counted for what comes next."""
        if self._pending:
            jax.block_until_ready(self._pending[-1])

    def leave_out(self, seconds: float) -> None:
        """Leaves out the last ``seconds``, such as those spent compiling, from the rate and the time left."""
        self._since += seconds

    def restart_clock(self, after: dict[str, Array] | None = None) -> float:
        """The seconds since the clock was started, which it then starts anew.

        Called after compiling and evaluating, so that the rate excludes them. Waits for metrics ``after``.
        """
        jax.block_until_ready(after)
        seconds = time.perf_counter() - self._since
        self._since, self._timed, self._waited = time.perf_counter(), 0, 0.0
        return seconds


def check_finite(step: int, metrics: dict[str, np.ndarray]) -> None:
    """Raises FloatingPointError naming ``step`` and the losses that are NaN or infinite."""
    losses = {name: float(value) for name, value in metrics.items() if name != "lr"}
    bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if bad:
        described = ", ".join(f"{name} is {value}" for name, value in bad.items())
        rest = ", ".join(f"{name} {value:.4g}" for name, value in losses.items() if name not in bad)
        raise FloatingPointError(
            f"step {step}: {described} (the others: {rest or 'none'}); "
            "a lower train.learning_rate, a longer train.warmup_steps or train.clip_norm may help"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
