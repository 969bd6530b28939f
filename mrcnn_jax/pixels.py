"""What the pixels of a model's images are: how many channels, of which type, and which of them are shown."""

from dataclasses import dataclass, replace

import numpy as np

from mrcnn_jax.config import Config

# Of a float channel that is shown, the shares of its values that become black and white at the least: the
# default of QGIS for rasters.
_STRETCH = (2, 98)  # percentiles


@dataclass(frozen=True)
class PixelFormat:
    """The pixels of an image, ``[H W C]``; by default RGB, 0 to 255, which photographs are converted to.

    With another number of channels, or as "float32", the values are those in the file, in its units.
    """

    channels: int = 3
    dtype: str = "uint8"  # or "float32", which holds all integers of 16 bits
    shown: tuple[int, ...] = ()  # the channels that pictures show, three or one; (): the first

    @staticmethod
    def of(config: Config) -> "PixelFormat":
        """The pixels that the config's model takes."""
        model = config.model
        return PixelFormat(len(model.pixel_mean), model.pixel_type, config.data.shown_channels)

    @property
    def is_rgb(self) -> bool:
        """Whether images are photographs: 8-bit RGB, whatever the file has."""
        return replace(self, shown=()) == PixelFormat()

    def __str__(self) -> str:
        return f"[H W {self.channels}] {self.dtype}"

    def convert(self, values: np.ndarray) -> np.ndarray:
        """``values [H W C]`` or, of one channel, ``[H W]`` as pixels of this format.

        One channel becomes three if the format has three, as gray is RGB of equal values. Raises ValueError
        with what is given and what is wanted: for another number of channels, for "uint8" unless the values
        are uint8, and for values that are no finite float32.
        """
        if not values.size:
            raise ValueError(f"it is empty ({_shown(values)})")
        if values.ndim == 2:
            values = np.repeat(values[:, :, None], 3 if self.channels == 3 else 1, axis=2)
        if values.ndim != 3 or values.shape[2] != self.channels:
            number = f"{values.shape[2]} channels" if values.ndim == 3 else f"{values.ndim} axes"
            raise ValueError(
                f"it has {number} ({_shown(values)}), but the model takes {self}: as many channels as "
                "model.pixel_mean has values"
            )
        if self.dtype == "uint8":
            if values.dtype != np.uint8:
                raise ValueError(
                    f"its values are {values.dtype} ({_shown(values)}), but the model takes {self}; "
                    "model.pixel_type 'float32' takes them as they are, with model.pixel_mean and pixel_std "
                    "in their units"
                )
            return values
        if values.dtype.kind not in "uif":
            raise ValueError(f"its values are {values.dtype}; they must be integers or floats")
        with np.errstate(over="ignore"):
            floats = values.astype(np.float32, copy=False)
        if values.dtype.itemsize > 1 and not np.isfinite(floats).all():
            raise ValueError("its values must be finite, but some are infinite, NaN or beyond float32")
        return floats

    def show(self, pixels: np.ndarray) -> np.ndarray:
        """A picture of ``pixels [H W C]``: uint8 RGB ``[H W 3]`` of the channels that are shown.

        They are the first three by default, or the first as gray if there are fewer. 8 bits are shown as they
        are. Other values have no known range, so each channel is stretched between two percentiles of the
        image.
        """
        chosen = self.shown or tuple(range(3 if self.channels >= 3 else 1))
        picture = pixels if chosen == tuple(range(self.channels)) else pixels[..., list(chosen)]
        if self.dtype == "float32":
            low, high = np.percentile(picture, _STRETCH, axis=(0, 1))
            picture = np.clip((picture - low) / np.maximum(high - low, 1e-12), 0, 1) * 255
        if picture.dtype != np.uint8:  # also what torchvision's rule makes of 8 bits
            picture = picture.round().astype(np.uint8)
        return picture if len(chosen) == 3 else np.repeat(picture, 3, axis=2)


RGB = PixelFormat()


def _shown(values: np.ndarray) -> str:
    return f"{list(values.shape)} {values.dtype}"
