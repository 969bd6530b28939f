"""ResNet (arXiv 1512.03385) and ResNeXt (arXiv 1611.05431): images to feature maps C2 to C5.

Attributes are named as in torchvision. The masks ``before`` and ``after`` mark the cells of a block's or
stage's input and output that belong to an image: see ``canvas``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.canvas import Mask, map_mask, mask_out
from mrcnn_jax.models.convs import Conv, he_normal
from mrcnn_jax.models.deform import DeformConv
from mrcnn_jax.models.non_local import NonLocal
from mrcnn_jax.models.norm import Norm, make_norm
from mrcnn_jax.models.stem import apply_stem
from mrcnn_jax.ops.relu import relu
from mrcnn_jax.runtime.platforms import RECOMPUTED_STAGES, platform

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3", "non_local"), ("layer4",))
MakeNorm = Callable[[int], Norm]  # takes the number of channels


def plain_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    *,
    dilation: int = 1,
    groups: int = 1,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Conv:
    """A convolution without bias."""
    return Conv(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        use_bias=False,
        kernel_init=he_normal,
        dtype=dtype,
        rngs=rngs,
    )


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    expansion = 1
    conv_norms = (("conv1", "bn1"), ("conv2", "bn2"), ("downsample.0", "downsample.1"))

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        norm: MakeNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        conv = partial(plain_conv, dtype=dtype, rngs=rngs)
        self.stride = stride
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, 1)
        self.bn2 = norm(channels)
        self.downsample = make_shortcut(in_channels, channels, stride, norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], before: Mask, after: Mask) -> Float[Array, "b h2 w2 d"]:
        shortcut = apply_shortcut(self.downsample, x, after)
        x = relu(mask_out(self.bn1(self.conv1(mask_out(x, before)), mask=after), after))
        return relu(self.bn2(self.conv2(x), mask=after) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and deeper).

    The 3x3 convolution has ``groups`` groups of ``channels * group_width / 64`` channels, the dilation, and
    the stride, unless ``stride_in_1x1`` puts the stride on the first 1x1. It may be ``deformable``.
    """

    expansion = 4
    conv_norms = (*BasicBlock.conv_norms, ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        stride_in_1x1: bool,
        groups: int,
        group_width: int,
        dilation: int,
        deformable: str,
        norm: MakeNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        conv = partial(plain_conv, dtype=dtype, rngs=rngs)
        out_channels = channels * self.expansion
        width = channels * group_width // 64 * groups
        self.stride = stride
        self.stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = conv(in_channels, width, 1, self.stride_1x1)
        self.bn1 = norm(width)
        if deformable:
            self.conv2: Conv = DeformConv(
                width,
                width,
                stride=stride_3x3,
                dilation=dilation,
                groups=groups,
                modulated=deformable == "modulated",
                dtype=dtype,
                rngs=rngs,
            )
        else:
            self.conv2 = conv(width, width, 3, stride_3x3, dilation=dilation, groups=groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out_channels, 1, 1)
        self.bn3 = norm(out_channels)
        self.downsample = make_shortcut(in_channels, out_channels, stride, norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], before: Mask, after: Mask) -> Float[Array, "b h2 w2 d"]:
        between = before if self.stride_1x1 == 1 else after
        shortcut = apply_shortcut(self.downsample, x, after)
        x = relu(mask_out(self.bn1(self.conv1(x), mask=between), between))
        x = relu(self.bn2(self.conv2(x), mask=after))
        return relu(self.bn3(self.conv3(x), mask=after) + shortcut)


def make_shortcut(
    in_channels: int, out_channels: int, stride: int, norm: MakeNorm, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> Sequence[nnx.Module]:
    """The shortcut's 1x1 convolution and norm if the block changes the shape, else an empty list."""
    if stride == 1 and in_channels == out_channels:
        return nnx.List([])
    return nnx.List(
        [plain_conv(in_channels, out_channels, 1, stride, dtype=dtype, rngs=rngs), norm(out_channels)]
    )


def apply_shortcut(
    projection: Sequence[Any], x: Float[Array, "b h w c"], mask: Mask
) -> Float[Array, "b h2 w2 d"]:
    if not projection:
        return x
    conv, norm = projection
    return norm(conv(x), mask=mask)


def make_stage(config: ModelConfig, stage: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Sequence[nnx.Module]:
    """The blocks of ``layer1`` to ``layer4``; ``stage`` is the number, 1 to 4."""
    block = Bottleneck if config.backbone_depth >= 50 else BasicBlock
    options: dict[str, Any] = {}
    dilated = config.features == "dc5" and stage == 4
    keeps_size = dilated or (config.features == "c4" and stage == 4 and config.res5_stride == 1)
    if block is Bottleneck:
        options = {
            "stride_in_1x1": config.backbone_stride_in_1x1,
            "groups": config.backbone_groups,
            "group_width": config.backbone_group_width,
            "dilation": 2 if dilated else 1,
            "deformable": config.backbone_deformable if stage > 1 else "",
        }
    channels = config.backbone_width * 2 ** (stage - 1)
    in_channels = config.backbone_width if stage == 1 else stage_channels(config, stage - 1)
    blocks = []
    for number in range(BLOCKS[config.backbone_depth][stage - 1]):
        halves = number == 0 and stage > 1 and not keeps_size
        norm = stage_norm(config, stage, dtype=dtype, rngs=rngs)
        blocks.append(
            block(
                in_channels, channels, stride=2 if halves else 1, norm=norm, dtype=dtype, rngs=rngs, **options
            )
        )
        in_channels = stage_channels(config, stage)
    return nnx.List(blocks)


def apply_stage(
    stage: Sequence[Any],
    x: Float[Array, "b h w c"],
    before: Mask = None,
    after: Mask = None,
    non_local: NonLocal | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """The output of a stage: its blocks applied to ``x`` in turn, ``non_local`` before the last of them."""
    for number, block in enumerate(stage, start=1):
        if non_local is not None and number == len(stage):
            x = non_local(x, before)
        x = block(x, before, after)
        before = after
    return x


def stage_channels(config: ModelConfig, stage: int) -> int:
    """The number of channels of a stage's output."""
    expansion = Bottleneck.expansion if config.backbone_depth >= 50 else BasicBlock.expansion
    return config.backbone_width * 2 ** (stage - 1) * expansion


def stage_norm(config: ModelConfig, stage: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> MakeNorm:
    """A stage's norm constructor: in a frozen stage (the stem is stage 0) "frozen_batch" replaces "batch"."""
    kind = config.backbone_norm
    if kind == "batch" and stage < config.backbone_frozen_stages:
        kind = "frozen_batch"
    return partial(make_norm, kind, epsilon=config.backbone_norm_epsilon, dtype=dtype, rngs=rngs)


def recomputed_stages(configured: int) -> int:
    """How many stages are recomputed for the gradient: as configured, or, if that is -1, by the platform."""
    if configured >= 0:
        return configured
    return RECOMPUTED_STAGES.get(platform(), RECOMPUTED_STAGES["default"])


def _non_local(config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> NonLocal:
    # A new layer has no statistics to freeze: with "frozen_batch" the block has no norm.
    has_norm = config.backbone_norm != "frozen_batch"
    return NonLocal(
        stage_channels(config, 3),
        subsampled=config.non_local == "subsampled",
        norm=stage_norm(config, 3, dtype=dtype, rngs=rngs) if has_norm else None,
        dtype=dtype,
        rngs=rngs,
    )


class ResNet(nnx.Module):
    """ResNet without its classifier: ``layer1`` to ``layer4`` return C2 to C5, at strides 4, 8, 16 and 32.

    With ``config.features`` "c4" it ends at ``layer3``; with "dc5" ``layer4`` is dilated, at stride 16. With
    ``config.non_local`` a non-local block precedes the last block of ``layer3``.
    """

    conv_norms = (("conv1", "bn1"),)

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.conv1 = plain_conv(len(config.pixel_mean), config.backbone_width, 7, 2, dtype=dtype, rngs=rngs)
        self.bn1 = stage_norm(config, 0, dtype=dtype, rngs=rngs)(config.backbone_width)
        self.frozen_stages = config.backbone_frozen_stages
        self.recomputed_stages = config.backbone_recomputed_stages
        self.strides: dict[str, int] = {}
        self.channels: dict[str, int] = {}
        stride = 4
        for stage in range(1, 4 if config.features == "c4" else 5):
            blocks: Any = make_stage(config, stage, dtype=dtype, rngs=rngs)
            setattr(self, f"layer{stage}", blocks)
            stride *= blocks[0].stride
            self.strides[f"c{stage + 1}"] = stride
            self.channels[f"c{stage + 1}"] = stage_channels(config, stage)
        self.non_local = _non_local(config, dtype=dtype, rngs=rngs) if config.non_local else None

    def __call__(
        self,
        images: Float[Array, "b h w n"],
        sizes: Int[Array, "b 2"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Feature maps ``c2`` to ``c5`` of normalised images, which must be zero beyond ``sizes``.

        Nothing is random, so ``keys`` are not read.
        """
        mask_at = partial(map_mask, images.shape[1:3], sizes)
        x = apply_stem(self.conv1, self.bn1, images, sizes)
        before, features = mask_at(4), {}
        recomputed = recomputed_stages(self.recomputed_stages)
        for number, (name, stride) in enumerate(self.strides.items(), start=1):
            stage, after = getattr(self, f"layer{number}"), mask_at(stride)
            apply = nnx.remat(apply_stage) if number <= recomputed else apply_stage
            x = apply(stage, x, before, after, self.non_local if name == "c4" else None)
            features[name], before = x, after
        return features

    def is_frozen(self, path: Sequence[str | int]) -> bool:
        """Whether the parameter at ``path`` in this module belongs to a frozen stage."""
        return any(path[0] in names for names in _STAGES[: self.frozen_stages])
