"""A report as text."""

from collections.abc import Iterable

from mrcnn_jax.compile_report.report import Costly, Report, Time

_WIDTH = 100  # of a line, about


def format_report(report: Report) -> str:
    """The lines of a report: memory, time by stage and kind, loops, collectives, padding, types, kernels."""
    return "\n".join(
        [
            *_memory(report),
            *_stages(report),
            *_largest("most time", report.largest, "ms", 1.0),
            *_loops(report),
            *_collectives(report),
            *_largest("padding: bytes of a result beyond its values", report.padding, "MB", 1e-6),
            *_types(report),
        ]
    )


def _memory(report: Report) -> list[str]:
    memory = report.memory
    parts = {
        "arguments": memory.arguments,
        "results": memory.results - memory.aliased,
        "temporary": memory.temporary,
        "code": memory.code,
    }
    return [
        "memory of each device, GB",
        *(f"  {name:<12}{size / 1e9:8.2f}" for name, size in parts.items()),
        f"  {'total':<12}{memory.total / 1e9:8.2f} of {memory.limit / 1e9:.2f}",
    ]


def _stages(report: Report) -> list[str]:
    total = report.milliseconds or 1.0
    rows = [(name, time) for name, time in report.stages.items() if time.total >= 0.0005]
    whole = Time(
        forward=sum(time.forward for _, time in rows),
        recomputed=sum(time.recomputed for _, time in rows),
        gradient=sum(time.gradient for _, time in rows),
    )
    known = max(0.0, 1 - report.bounded / total)
    return [
        "",
        f"estimated time, ms: {report.operations} operations, {known:.0%} of the time by the compiler's own "
        "estimate, the rest at least this",
        f"  {'':<20}{'forward':>10}{'again':>10}{'gradient':>10}{'total':>10}",
        *(f"  {name:<20}{_times(time)}{time.total / total:7.1%}" for name, time in [*rows, ("total", whole)]),
        *([f"  and {report.ahead / 1e9:.2f} GB copied ahead, while it computes"] if report.ahead else []),
        "",
        "by kind, ms",
        *_wrapped(f"{kind} {ms:.2f}" for kind, ms in report.kinds.items() if ms >= 0.005),
    ]


def _times(time: Time) -> str:
    return "".join(f"{ms:10.3f}" for ms in (time.forward, time.recomputed, time.gradient, time.total))


def _largest(title: str, rows: list[Costly], unit: str, factor: float) -> list[str]:
    lines = [
        f"  {row.amount * factor:9.3f} {row.times:>5} x  {row.stage:<18}{row.kind:<13}{row.type[:60]}\n"
        f"  {'':17}{row.scope[-_WIDTH:]}"
        for row in rows
    ]
    return ["", f"{title}, {unit}", *lines] if lines else []


def _loops(report: Report) -> list[str]:
    lines = [
        f"  {'?' if loop.trips is None else loop.trips:>6} trips, entered {loop.entered:>5} x  "
        f"{loop.stage:<18}{loop.scope[-60:]}"
        for loop in report.loops
    ]
    return ["", "loops (? trips: until done; counted once)", *lines] if lines else []


def _collectives(report: Report) -> list[str]:
    lines = [
        f"  {row.count:>5} x {row.kind:<20}{row.bytes / 1e6:10.2f} MB  {row.types:<10}{row.stage}"
        for row in report.collectives
    ]
    return ["", "collectives", *(lines or ["  none"])]


def _types(report: Report) -> list[str]:
    lines = [
        f"  {stage:<20}" + ", ".join(f"{count} x ({kind})" for kind, count in types.items())
        for stage, types in report.matmuls.items()
    ]
    kernels = _wrapped(f"{count} x {name}" for name, count in report.kernels.items())
    return ["", "convolutions and matmuls", *lines, *(["", "kernels", *kernels] if kernels else [])]


def _wrapped(items: Iterable[str]) -> list[str]:
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) > _WIDTH:
            lines.append("")
        lines[-1] += ("  " if not lines[-1] else ", ") + item
    return [line for line in lines if line]
