"""On which canvases images lie, by their sizes alone."""

from mrcnn_jax.config import Config
from mrcnn_jax.images import Size, fitted_shape
from mrcnn_jax.inference.views import scales_of

Canvases = tuple[Size, ...]  # of an image, at each scale

# Height to width, from 1:8 to 8:1, of the images that the model is compiled with.
_RATIOS = tuple(2 ** (step / 8) for step in range(-24, 25))
_SIDE = 512  # pixels of those images; only their ratio decides where an image lies


def canvases_of_size(config: Config, size: Size) -> Canvases:
    """The canvases on which an image of this height and width lies, one for each scale."""
    return tuple(
        fitted_shape(*size, **scale._asdict(), rule=config.data.resize)[1] for scale in scales_of(config)
    )


def one_size_per_canvas(config: Config) -> dict[Canvases, Size]:
    """The canvases on which images may lie, each with a size of images that do."""
    sizes = [(round(_SIDE * max(ratio, 1)), round(_SIDE * max(1 / ratio, 1))) for ratio in _RATIOS]
    return {canvases_of_size(config, size): size for size in sizes}
