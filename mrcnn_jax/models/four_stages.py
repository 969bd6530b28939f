"""What ConvNeXt and Swin have in common: patches of 4 x 4 pixels, then four stages of residual blocks.

Each stage but the first begins by halving the map, and each has a layer norm on its output, which only the
pyramid reads, as in the papers' detectors; classifiers have none of these four norms.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.canvas import Mask, map_mask
from mrcnn_jax.models.convs import PatchConv
from mrcnn_jax.models.drop_path import Keys, keys_of_block
from mrcnn_jax.models.norm import make_norm
from mrcnn_jax.models.resnet import recomputed_stages

_PATCH = 4  # pixels

# A block takes its map, the mask of the images' cells and the images' keys for dropped paths. It is made of
# the stage's number, from 0, its own number in the stage, and the share of images in which it is dropped.
MakeBlock = Callable[[int, int, float], nnx.Module]
MakeDownsample = Callable[[int], nnx.Module]  # of the number of channels, which it doubles


class Stage(nnx.Module):
    """``blocks`` of one resolution, after a ``downsample`` to it, except in the first stage."""

    def __init__(self, downsample: nnx.Module | None, blocks: Sequence[nnx.Module], first: int) -> None:
        self.downsample: Any = nnx.data(downsample)
        self.blocks: Any = nnx.List(blocks)
        self.first = first  # number of the first block, counted over all stages

    def __call__(self, x: Float[Array, "b h w c"], mask: Mask, keys: Keys) -> Float[Array, "b h2 w2 d"]:
        """The stage's output; ``mask`` is that of its resolution."""
        if self.downsample is not None:
            x = self.downsample(x)
        for number, block in enumerate(self.blocks, start=self.first):
            x = block(x, mask, keys_of_block(keys, number))
        return x


class FourStages(nnx.Module):
    """The backbone without its classifier; returns C2 to C5, at strides 4, 8, 16 and 32.

    Args:
        depths: blocks of each stage.
        channels: of the first stage; each other has twice as many as the one before.
        epsilon: of all layer norms, added to variances.
    """

    conv_norms = ()

    def __init__(
        self,
        config: ModelConfig,
        *,
        depths: tuple[int, ...],
        channels: int,
        make_block: MakeBlock,
        make_downsample: MakeDownsample,
        epsilon: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        norm = partial(make_norm, "layer", epsilon=epsilon, dtype=dtype, rngs=rngs)
        init = nnx.initializers.normal(0.02)
        inputs = len(config.pixel_mean)
        self.stem = PatchConv(inputs, channels, _PATCH, kernel_init=init, dtype=dtype, rngs=rngs)
        self.stem_norm = norm(channels)
        self.channels = {f"c{stage + 2}": channels * 2**stage for stage in range(len(depths))}
        self.strides = {f"c{stage + 2}": _PATCH * 2**stage for stage in range(len(depths))}
        stages, first = [], 0
        for stage, depth in enumerate(depths):
            # In proportion to the depth: nothing of the first block is dropped.
            shares = [config.backbone_drop_path * (first + i) / (sum(depths) - 1) for i in range(depth)]
            downsample = make_downsample(channels * 2 ** (stage - 1)) if stage else None
            blocks = [make_block(stage, i, share) for i, share in enumerate(shares)]
            stages.append(Stage(downsample, blocks, first))
            first += depth
        self.stages = nnx.List(stages)
        self.norms = nnx.List([norm(count) for count in self.channels.values()])
        self.frozen_stages = config.backbone_frozen_stages
        self.recomputed_stages = config.backbone_recomputed_stages

    def __call__(
        self,
        images: Float[Array, "b h w n"],
        sizes: Int[Array, "b 2"] | None = None,
        keys: Keys = None,
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Feature maps ``c2`` to ``c5`` of normalised images, which must be zero beyond ``sizes``.

        ``sizes`` must be multiples of 32: then no patch and no square of cells that is merged lies across an
        image's border. ``keys`` drop paths of blocks at random.
        """
        x: Any = self.stem_norm(self.stem(images))
        features, recomputed = {}, recomputed_stages(self.recomputed_stages)
        for number, (name, stride) in enumerate(self.strides.items()):
            apply = nnx.remat(Stage.__call__) if number < recomputed else Stage.__call__
            x = apply(self.stages[number], x, map_mask(images.shape[1:3], sizes, stride), keys)
            features[name] = self.norms[number](x)
        return features

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether the parameter at ``path`` belongs to a frozen stage; the norms of the outputs never do."""
        match path:
            case ["stem" | "stem_norm", *_]:
                return self.frozen_stages > 0
            case ["stages", int(stage), *_]:
                return stage + 1 < self.frozen_stages
        return False
