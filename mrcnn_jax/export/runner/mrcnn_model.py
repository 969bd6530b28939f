"""Runs a .mrcnn file by jax (docs/deployment.md)."""

import json
import os
import re
import zipfile
from typing import Any

import numpy as np

from .detector import Detector
from .resizing import Size, resize

# XLA's defaults are slow on a CPU, and give wrong values in some graphs: mrcnn_jax/runtime/compilations.py.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_backend_optimization_level": 2,
}
# A program is not trusted, and a custom call could be one of any function in this process. A model's programs
# have none, apart from a TPU's kernels.
CUSTOM_CALL = re.compile(r"\bcustom_call\b(?! @tpu_custom_call\()")


def load(path: str) -> "Model":
    """The model in a file. Raises ValueError, naming the file and the rule, if it is damaged or unfit."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()  # uncompressed, so that a small file cannot fill the memory
            size = sum(entry.file_size for entry in entries)
            if any(entry.compress_type for entry in entries) or size > os.path.getsize(path):
                raise ValueError("its entries must be uncompressed")
            return Model({entry.filename: archive.read(entry) for entry in entries})
    except (
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path}: is damaged or not from mrcnn-jax export: {error!r}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


class Model(Detector):
    """Called with a list of images, it returns a list of what was found; see the package."""

    def __init__(self, files: dict[str, bytes]) -> None:
        import jax

        super().__init__({name: files[f"{name}.json"] for name in ("manifest", "config", "categories")})
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        set_by_user = any(f"--{name}" in os.environ.get("XLA_FLAGS", "") for name in CPU_OPTIONS)
        tried = platform == "cpu" and jax.__version__.startswith(("0.10.", "0.12.")) and not set_by_user
        self.programs: dict[Size, dict[int, Any]] = {}  # by canvas, then by batch size
        for name in files:
            if name.startswith(f"programs/{platform}-"):
                exported = _deserialize(files[name], self.manifest["jax"])
                images = exported.in_avals[-2]
                (batch, *canvas, self.channels), self.dtype = images.shape, images.dtype
                program = jax.jit(exported.call, compiler_options=CPU_OPTIONS if tried else {})
                self.programs.setdefault(tuple(canvas), {})[batch] = program
        if not self.programs:
            there = {name.split("/")[1].split("-")[0] for name in files if name.startswith("programs/")}
            others = f"has programs for {', '.join(sorted(there))}, but jax runs on {platform}"
            raise ValueError(f"{others} (JAX_PLATFORMS=NAME selects a platform)")
        self.weights = jax.device_put(_read_safetensors(files["weights.safetensors"]))

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        import jax

        self.check(images)
        fitted: list[tuple[np.ndarray, Size]] = [self._fit(image) for image in images]
        found: list[Any] = [None] * len(images)
        for canvas, programs in self.programs.items():
            rows = [row for row, (_, own) in enumerate(fitted) if own == canvas]
            while rows:
                batch = min((size for size in programs if size >= len(rows)), default=max(programs))
                pixels = np.zeros((batch, *canvas, self.channels), self.dtype)
                sizes = np.full((batch, 2), canvas, np.int32)
                for place, row in enumerate(rows[:batch]):
                    height, width = sizes[place] = fitted[row][0].shape[:2]
                    pixels[place, :height, :width] = fitted[row][0]
                outputs = jax.device_get(programs[batch](self.weights, pixels, sizes))
                for place, row in enumerate(rows[:batch]):
                    own = {name: values[place] for name, values in outputs.items()}
                    found[row] = self.finish(own, sizes[place].tolist(), images[row].shape[:2])
                rows = rows[batch:]
        return found

    def _fit(self, image: np.ndarray) -> tuple[np.ndarray, Size]:
        """The resized image, and its canvas: the smallest that it fits, or the one that shrinks it least."""
        shape = self.resized_shape(image)
        scales = {canvas: min(canvas[0] / shape[0], canvas[1] / shape[1]) for canvas in self.programs}
        canvas = max(scales, key=lambda canvas: (min(1.0, scales[canvas]), -canvas[0] * canvas[1]))
        if scales[canvas] < 1:
            sides = (int(side * scales[canvas] + 0.5) for side in shape)
            shape = tuple(max(1, min(most, side)) for most, side in zip(canvas, sides, strict=True))
        return resize(image, shape, self.config["data"]["resize"]), canvas


def _deserialize(content: bytes, version: str) -> Any:
    import jax

    try:
        exported = jax.export.deserialize(bytearray(content))
        text = exported.mlir_module()
    except ImportError:  # of flatbuffers
        raise
    except Exception as error:  # what it raises for other versions is not documented
        raise ValueError(
            f"was exported with jax {version}, and jax {jax.__version__} cannot read it ({error}): install "
            "that version, or export the run again; jax reads programs of versions up to 6 months older"
        ) from error
    if CUSTOM_CALL.search(text):
        raise ValueError("has a program with a custom call, which a model has none of")
    return exported


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file, all float32, by name."""
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(content[start + first : start + last], np.float32)
        arrays[name] = values.reshape(entry["shape"])
    return arrays
