"""Writes a run as a TensorFlow SavedModel for TensorFlow Serving, on CPUs.

``jax.experimental.jax2tf`` does the same, but TensorFlow 2.21 cannot read the StableHLO version that jax
0.10.2 gives it. Here the program is written for readers 12 weeks older, of which that TensorFlow is one.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tensorflow as tf
from jax.extend.mlir.dialects import stablehlo
from tensorflow.compiler.tf2xla.python import xla

from mrcnn_jax.export.model_file import Exportable, check_new
from mrcnn_jax.export.programs import lower_program


def export_saved_model(
    model: Exportable,
    output: str | Path,
    *,
    batch_sizes: Sequence[int] = (1,),
    announce: Callable[[str], None] = lambda line: None,
) -> None:
    """Writes ``model`` to the new folder ``output``, with a signature for each canvas and batch size.

    A signature "detect_BxHxW" takes ``images`` [B H W C], resized and padded, and ``image_sizes`` [B 2],
    their heights and widths without padding; it returns the fields of ``Detections``, in pixels of the
    canvas. The first is "serving_default", too. ``announce`` is called with a line before each program is
    lowered. Raises ValueError for a batch size below 1, FileExistsError if ``output`` exists, and OSError.
    """
    output = Path(output)
    check_new(output)
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch sizes ({list(batch_sizes)}) must be at least 1")
    module = tf.Module()
    # In the order of jax.export, which flattens a dict by its sorted names.
    module.arrays = [tf.Variable(model.arrays[name], trainable=False) for name in sorted(model.arrays)]
    signatures = {}
    for canvas in model.scale.canvases:
        for batch in sorted(set(batch_sizes)):
            name = f"detect_{batch}x{canvas[0]}x{canvas[1]}"
            announce(f"lowering {name}")
            content = lower_program(
                model.folded, model.config, platform="cpu", canvas=canvas, batch_size=batch
            )
            signatures[name] = _signature(jax.export.deserialize(bytearray(content)), module.arrays)
    module.signatures_kept = list(signatures.values())  # with their variables
    default = next(iter(signatures.values()))
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        whole = Path(folder) / output.name
        tf.saved_model.save(module, str(whole), signatures={"serving_default": default, **signatures})
        check_new(output)  # another process may have written it in the meantime
        whole.rename(output)


def _signature(exported: jax.export.Exported, arrays: Sequence[tf.Variable]) -> Any:
    """The program as a function of TensorFlow."""
    version = stablehlo.get_version_from_compatibility_requirement(
        stablehlo.StablehloCompatibilityRequirement.WEEK_12
    )
    program = stablehlo.serialize_portable_artifact_str(exported.mlir_module().encode(), version)
    names = sorted(jax.tree.unflatten(exported.out_tree, exported.out_avals))
    images, image_sizes = exported.in_avals[-2:]

    def detect(images: tf.Tensor, image_sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        arguments = [*arrays, images, image_sizes]
        outputs = xla.call_module(
            [arguments[index] for index in exported.module_kept_var_idx],
            version=exported.calling_convention_version,
            module=program,
            Tout=[aval.dtype for aval in exported.out_avals],
            Sout=[aval.shape for aval in exported.out_avals],
            platforms=["CPU"],
        )
        return dict(zip(names, outputs, strict=True))

    specs = [
        tf.TensorSpec(aval.shape, aval.dtype, name)
        for name, aval in (("images", images), ("image_sizes", image_sizes))
    ]
    return tf.function(detect, autograph=False, input_signature=specs)
