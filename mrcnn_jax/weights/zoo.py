"""Published models by name: ``torchvision/mask_rcnn_r50_fpn`` is the run converted from those weights."""

import contextlib
import glob
import shutil
import sys
import tempfile
from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.runs.description import is_run, read_run
from mrcnn_jax.weights.convert import import_weights
from mrcnn_jax.weights.download import UNFINISHED, download, locked
from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, Model, config_of, find_model, find_weights


def workdir_of(name_or_path: str | Path) -> Path:
    """The directory of a run, which is downloaded and converted first if a published model is named.

    A name of ``MODELS`` counts only if there is no such file or directory. Its weights are downloaded to
    ``~/.cache/mrcnn_jax/weights`` and converted to a run in ``~/.cache/mrcnn_jax/zoo``, both once, which is
    said on stderr; several processes may do this at the same time. Anything else is returned as it is.

    Raises ValueError for a name that begins like a published model's but is none, and the errors of
    ``download`` and ``import_weights``.
    """
    model = find_model(name_or_path)
    if model is None:
        return Path(name_or_path)
    workdir, config = Path.home() / ".cache" / "mrcnn_jax" / "zoo" / model.name, config_of(model)
    if not _is_converted(workdir, config):
        path = download(model)
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as is_alone:
            if is_alone:  # what a killed process left
                for abandoned in workdir.parent.glob(f".{glob.escape(workdir.name)}.*{UNFINISHED}"):
                    shutil.rmtree(abandoned, ignore_errors=True)
            if not _is_converted(workdir, config):
                _convert(model, path, config, workdir)
    return workdir


def file_of(name_or_path: str | Path) -> Path:
    """The path of a weights file, which is downloaded first if a published model or backbone is named.

    A name of ``MODELS`` or ``BACKBONES`` counts only if there is no such file. Anything else is returned as
    it is. Raises ValueError for a name that begins like one of them but is none, and the errors of
    ``download``.
    """
    weights = find_weights(name_or_path, {**MODELS, **BACKBONES})
    return Path(name_or_path) if weights is None else download(weights)


def _is_converted(workdir: Path, config: Config) -> bool:
    """Whether the run is there and was converted with the same settings, which another version may change."""
    if not is_run(workdir):
        return False
    with contextlib.suppress(ValueError, OSError):
        return read_run(workdir).config == config
    return False


def _convert(model: Model, path: Path, config: Config, workdir: Path) -> None:
    """Makes the run beside its place and moves it there, so that no other process sees a part of it."""
    print(f"converting {path.name} to a run in {workdir}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(
        dir=workdir.parent, prefix=f".{workdir.name}.", suffix=UNFINISHED
    ) as scratch:
        made, old = Path(scratch) / "run", Path(scratch) / "old"
        import_weights(model.system, path, config, made)
        try:
            made.rename(workdir)
        except OSError:  # there is a run already: of an older version, or made by another process just now
            if not _is_converted(workdir, config):
                with contextlib.suppress(FileNotFoundError):
                    workdir.rename(old)
                made.rename(workdir)
