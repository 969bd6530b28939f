"""Writes a run as one file, which ``runner`` runs: an uncompressed zip archive of

manifest.json                     versions of this format and of jax, the checkpoint's step, sizes of images
config.json, categories.json      as in a run's directory
weights.safetensors               the arrays, float32, batch norms folded into convolutions; for all programs
programs/PLATFORM-BxHxW.stablehlo inference on a batch of B images on a canvas of H x W, from jax.export
__main__.py, runner/              command.py and the package runner of this folder
"""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Sequence
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
from mrcnn_jax.inference.views import Scale, scales_of, views_of
from mrcnn_jax.json_files import replacing
from mrcnn_jax.models.variables import Blueprint, make_blueprint
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.runs.checkpoint import check_arrays_match, load_weights
from mrcnn_jax.runs.description import read_run

_FOLDER = Path(__file__).parent
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # of entries, so that equal runs give equal files


@dataclass(frozen=True)
class Exportable:
    """A run's model, ready to be lowered."""

    config: Config
    categories: Categories
    step: int
    folded: Blueprint
    arrays: dict[str, np.ndarray]  # for ``folded.build``
    scale: Scale  # the config's only one, with the canvases that are exported


def check_exportable(config: Config) -> None:
    """Raises ValueError unless the model finds objects in a single view of an image of 8-bit channels."""
    check_finds_objects(config.model)
    if config.model.pixel_type != "uint8":
        raise ValueError(
            f"the model takes {config.model.pixel_type} images (model.pixel_type) and cannot be exported: "
            "the runner resizes uint8 images alone"
        )
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
    check_canvases(config, canvases)
    step, weights = load_weights(Path(workdir), step)
    categories = run.categories
    blueprint = make_blueprint(
        config.model, num_classes=len(categories), num_keypoints=len(categories.keypoint_names)
    )
    check_arrays_match(blueprint.shapes(), weights, source=f"{workdir}, step {step}")
    arrays = {name: np.asarray(array) for name, array in jax.jit(blueprint.fold)(weights).items()}
    scale = scales_of(config)[0]
    chosen = tuple(canvas for canvas in scale.canvases if canvas in canvases) or scale.canvases
    scale = scale._replace(canvases=chosen)
    return Exportable(config, categories, step, blueprint.folded(), arrays, scale)


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
    check_platforms(platforms)
    test = dataclasses.replace(model.config.test, batch_size=batch_sizes[-1])
    config = dataclasses.replace(model.config, test=test)
    manifest = {
        "version": VERSION,
        "jax": jax.__version__,
        "step": model.step,
        "short_side": model.scale.short_side,
        "long_side": model.scale.long_side,
    }
    files = {
        "manifest.json": _json(manifest),
        "config.json": _json(to_dict(config)),
        "categories.json": _json(dataclasses.asdict(model.categories)),
        "__main__.py": (_FOLDER / "command.py").read_bytes(),
        **{f"runner/{path.name}": path.read_bytes() for path in sorted((_FOLDER / "runner").glob("*.py"))},
        "weights.safetensors": safetensors.numpy.save(model.arrays),
    }
    for platform in platforms:
        for canvas in model.scale.canvases:
            for batch in batch_sizes:
                name = f"programs/{platform}-{batch}x{canvas[0]}x{canvas[1]}.stablehlo"
                announce(f"lowering {name}")
                files[name] = lower_program(
                    model.folded, model.config, platform=platform, canvas=canvas, batch_size=batch
                )
    with replacing(output) as unfinished:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, _OLDEST_DATE), content)
        check_new(output)  # another process may have written it in the meantime


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises ValueError unless there are some, and all are known."""
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise ValueError(f"platform {', '.join(unknown)} is unknown; there are {', '.join(PLATFORMS)}")
    if not platforms:
        raise ValueError(f"no platform is named; there are {', '.join(PLATFORMS)}")


def check_canvases(config: Config, canvases: Sequence[Size]) -> None:
    """Raises ValueError unless all are among those of the config's only scale."""
    own = scales_of(config)[0].canvases
    if unknown := [canvas for canvas in canvases if canvas not in own]:
        raise ValueError(f"canvas {_names(unknown)} is not one of the config's, which are {_names(own)}")


def check_new(output: Path) -> None:
    """Raises FileExistsError if ``output`` exists, and ValueError if its folder does not."""
    if output.exists():
        raise FileExistsError(f"{output}: already exists and is not overwritten")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=2, allow_nan=False).encode()


def _names(canvases: Sequence[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in canvases)
