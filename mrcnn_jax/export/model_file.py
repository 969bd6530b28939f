"""Writes a run as one file, which ``runner.py`` runs: an uncompressed zip archive of

manifest.json                     versions, preprocessing, postprocessing, categories, SHA-256 of the others
config.json                       all settings (mrcnn_jax/config/fields.py), for people and tools
weights.safetensors               the arrays, float32, batch norms folded into convolutions; for all programs
programs/PLATFORM-BxHxW.stablehlo inference on a batch of B images on a canvas of H x W, from jax.export
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import safetensors.numpy

from mrcnn_jax.config import Config, to_dict
from mrcnn_jax.export.programs import PLATFORMS, lower_program
from mrcnn_jax.export.runner import VERSION
from mrcnn_jax.images import Size
from mrcnn_jax.inference.predict import check_finds_objects
from mrcnn_jax.inference.views import scales_of, views_of
from mrcnn_jax.models.variables import Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import check_arrays_match, load_weights
from mrcnn_jax.runs.description import read_run

_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # of entries, so that equal runs give equal files


@dataclass(frozen=True)
class Exportable:
    """A run's model, ready to be lowered."""

    config: Config  # with the canvases that are exported
    categories: Categories
    step: int
    folded: Blueprint
    arrays: dict[str, np.ndarray]  # for ``folded.build``
    canvases: tuple[Size, ...]


def check_exportable(config: Config) -> None:
    """Raises ValueError unless the model finds objects in a single view of an image."""
    check_finds_objects(config.model)
    if len(views_of(config)) > 1:
        raise ValueError(
            "test-time augmentation (test.scales, test.flip) merges the detections of several programs and "
            'cannot be exported; export one scale: --config.test.flip=False --config.test.scales="()"'
        )


def load_exportable(
    workdir: str | Path,
    config: Config | None = None,
    *,
    step: int | Literal["best"] | None = None,
    canvases: Sequence[Size] = (),
) -> Exportable:
    """The model of a run's checkpoint (see ``load_weights``), with the run's config or a changed one.

    ``canvases`` are a selection of those of the config; all by default. Raises ValueError for others, and
    ValueError or FileNotFoundError like ``inference.detector.load``.
    """
    run = read_run(workdir)
    config = run.config if config is None else config
    check_exportable(config)
    own = scales_of(config)[0].canvases
    if unknown := [canvas for canvas in canvases if canvas not in own]:
        raise ValueError(f"canvas {_names(unknown)} is not one of the config's, which are {_names(own)}")
    step, weights = load_weights(Path(workdir), step)
    categories = run.categories
    blueprint = make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )
    check_arrays_match(blueprint.shapes(), weights, source=f"{workdir}, step {step}")
    arrays = {name: np.asarray(array) for name, array in jax.jit(blueprint.fold)(weights).items()}
    chosen = tuple(canvas for canvas in own if canvas in canvases) or own
    return Exportable(config, categories, step, blueprint.folded(), arrays, chosen)


def export_model(
    model: Exportable,
    output: str | Path,
    *,
    batch_sizes: Sequence[int] = (1,),
    platforms: Sequence[str] = PLATFORMS,
    announce: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes ``model`` to the file ``output``, with a program for each canvas, batch size and platform.

    ``announce`` is called with a line before each program is lowered, which takes seconds. Raises ValueError
    for a batch size below 1 or an unknown platform, FileExistsError if ``output`` exists, and OSError.
    """
    output = Path(output)
    check_new(output)
    batch_sizes, platforms = sorted(set(batch_sizes)), list(dict.fromkeys(platforms))
    if not batch_sizes or batch_sizes[0] < 1:
        raise ValueError(f"batch sizes ({batch_sizes}) must be at least 1")
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise ValueError(f"platform {', '.join(unknown)} is unknown; there are {', '.join(PLATFORMS)}")
    programs: dict[str, list[str]] = {}
    files = {
        "config.json": json.dumps(to_dict(model.config), indent=2).encode(),
        "weights.safetensors": safetensors.numpy.save(model.arrays),
    }
    for platform in platforms:
        for canvas in model.canvases:
            for batch in batch_sizes:
                name = f"programs/{platform}-{batch}x{canvas[0]}x{canvas[1]}.stablehlo"
                announce(f"lowering {name}")
                files[name] = lower_program(
                    model.folded, model.config, platform=platform, canvas=canvas, batch_size=batch
                )
                programs.setdefault(platform, []).append(name)
    _write(output, _manifest(model, programs, files), files)


def check_new(output: Path) -> None:
    """Raises FileExistsError if ``output`` exists, and ValueError if its folder does not."""
    if output.exists():
        raise FileExistsError(f"{output}: already exists and is not overwritten")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")


def _manifest(
    model: Exportable, programs: dict[str, list[str]], files: Mapping[str, bytes]
) -> dict[str, Any]:
    scale, test = scales_of(model.config)[0], model.config.test
    return {
        "version": VERSION,
        "jax": jax.__version__,
        "step": model.step,
        "preprocessing": {
            "short_side": scale.short_side,
            "long_side": scale.long_side,
            "resize": model.config.data.resize,
        },
        "postprocessing": {
            "mask_threshold": test.mask_threshold,
            "mask_paste": test.mask_paste,
            "keypoint_offset": model.config.data.keypoint_offset,
        },
        "categories": dataclasses.asdict(model.categories),
        "programs": programs,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }


def _write(output: Path, manifest: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Writes the archive; a file that another process has written in the meantime is kept."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, content in {"manifest.json": json.dumps(manifest, indent=2).encode(), **files}.items():
                archive.writestr(zipfile.ZipInfo(name, _OLDEST_DATE), content)
        check_new(output)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)


def _names(canvases: Sequence[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in canvases)
