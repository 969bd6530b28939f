"""The command ``python model.mrcnn``: an exported model has this file as ``__main__.py``, beside ``runner``.

    python model.mrcnn image.npy photo.jpg

prints a line of JSON for each image: the fields of what was found (see the runner), without the crops.
"""

import json
import os
import sys

import numpy as np
import runner  # type: ignore[import-not-found]  # beside it in the archive


def read_image(path: str) -> np.ndarray:
    """The pixels of a file. Raises ImportError for formats other than .npy without Pillow."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(f"{path}: needs Pillow (pip install pillow), unlike .npy files") from error
    return np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def read_for(model: runner.Model, path: str) -> np.ndarray:
    """The pixels of a file. Raises ValueError, naming it, if it cannot be read or is not for the model."""
    try:
        pixels = read_image(path)
        model.check([pixels])
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:  # NumPy and Pillow raise many, also EOFError
        raise ValueError(f"{path}: {error}") from error
    return pixels


def main(path: str, images: list[str]) -> None:
    if not images:
        sys.exit(f"usage: python {path} image.npy photo.jpg ...")
    try:
        model = runner.load(path)
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            advice = "JAX_COMPILATION_CACHE_DIR=FOLDER keeps the compiled programs for the next time"
            print(f"the first image of each shape takes longer, to compile; {advice}", file=sys.stderr)
        for image in images:
            (found,) = model([read_for(model, image)])
            found.pop("crops", None)
            line = json.dumps({"image": image, **found}, default=np.ndarray.tolist, allow_nan=False)
            print(line, flush=True)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[0], sys.argv[1:])
