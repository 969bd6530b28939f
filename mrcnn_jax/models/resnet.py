"""ResNet (arXiv 1512.03385), from pixels to C2 to C5. Attributes are named as in torchvision."""

from collections.abc import Callable, Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mrcnn_jax.models.convs import he_normal
from mrcnn_jax.models.norm import Norm, make_norm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
NormOf = Callable[[int], Norm]  # the norm of so many channels


def _conv(
    in_channels: int, out_channels: int, kernel: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    """A convolution without bias, padded by ``kernel // 2`` on every side (as torch; not "SAME")."""
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        kernel_init=he_normal,
        dtype=dtype,
        rngs=rngs,
    )


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, norm: NormOf, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        conv = partial(_conv, dtype=dtype, rngs=rngs)
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, 1)
        self.bn2 = norm(channels)
        self.downsample: nnx.List = nnx.List([])
        if stride != 1 or in_channels != channels:
            self.downsample = nnx.List([conv(in_channels, channels, 1, stride), norm(channels)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        stride_in_1x1: bool,
        norm: NormOf,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        conv = partial(_conv, dtype=dtype, rngs=rngs)
        out_channels = channels * self.expansion
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = conv(in_channels, channels, 1, stride_1x1)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride_3x3)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, out_channels, 1, 1)
        self.bn3 = norm(out_channels)
        self.downsample: nnx.List = nnx.List([])
        if stride != 1 or in_channels != out_channels:
            self.downsample = nnx.List([conv(in_channels, out_channels, 1, stride), norm(out_channels)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nnx.Module):
    """The convolutional body: ``layer1`` to ``layer4`` give C2 to C5, at strides 4, 8, 16 and 32.

    Args:
        depth: 18, 34, 50, 101 or 152.
        width: channels of the stem and of the first stage's 3x3 convolutions; 64 in the paper.
        norm: see ``make_norm``. The norms of frozen stages are "frozen_batch" in place of "batch".
        stride_in_1x1: the stride of a bottleneck lies on its first 1x1 convolution, else on its 3x3.
        frozen_stages: how many of stem, layer1, ... are not trained.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        norm: str,
        epsilon: float,
        stride_in_1x1: bool,
        frozen_stages: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        def norm_of_stage(stage: int) -> NormOf:
            kind = "frozen_batch" if norm == "batch" and stage < frozen_stages else norm
            return partial(make_norm, kind, epsilon=epsilon, dtype=dtype, rngs=rngs)

        make_block: Callable[..., nnx.Module] = BasicBlock
        expansion = BasicBlock.expansion
        if depth >= 50:
            make_block = partial(Bottleneck, stride_in_1x1=stride_in_1x1)
            expansion = Bottleneck.expansion

        self.conv1 = _conv(3, width, 7, 2, dtype=dtype, rngs=rngs)
        self.bn1 = norm_of_stage(0)(width)
        self.out_channels: dict[str, int] = {}
        in_channels, stages = width, []
        for stage, count in enumerate(BLOCKS[depth], start=1):
            blocks = []
            for i in range(count):
                block = make_block(
                    in_channels,
                    width * 2 ** (stage - 1),
                    stride=2 if i == 0 and stage > 1 else 1,
                    norm=norm_of_stage(stage),
                    dtype=dtype,
                    rngs=rngs,
                )
                blocks.append(block)
                in_channels = width * 2 ** (stage - 1) * expansion
            stages.append(nnx.List(blocks))
            self.out_channels[f"c{stage + 1}"] = in_channels
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def __call__(self, images: Float[Array, "b h w 3"]) -> dict[str, Float[Array, "b _ _ _"]]:
        """Features ``c2`` to ``c5`` of normalised images."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        features = {}
        for level, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=2):
            for block in stage:
                x = block(x)
            features[f"c{level}"] = x
        return features


def is_frozen(path: Sequence[str | int], frozen_stages: int) -> bool:
    """Whether the parameter at ``path`` inside a ``ResNet`` belongs to its first ``frozen_stages`` stages."""
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    return any(path[0] in names for names in stages[:frozen_stages])
