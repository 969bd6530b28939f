"""The gradient of a batch, added up over parts of it: only one part's activations are in memory at a time.

The losses are means over the rows (sampled regions, positive ones, visible keypoints) of the whole batch, and
how many there are is known only when the proposals of all parts are. So the parts are gone through twice: the
first time forward and only as far as to count the rows, the second time for the gradient, with each part's
sums divided by the counts of the whole. The result is the whole batch's, up to rounding, unless the model has
trained batch norms: their statistics are a part's, and the running ones are updated with every part.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Key

from mrcnn_jax.config import Config
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.models.variables import Arrays
from mrcnn_jax.training.freezing import statistics_of
from mrcnn_jax.training.objective import image_keys, sum_losses
from mrcnn_jax.types import Batch


def accumulate_gradients(
    build: Callable[[Arrays, Arrays], MaskRCNN],
    params: Arrays,
    batch_stats: Arrays,
    batch: Batch,
    key: Key[Array, ""],
    config: Config,
    image_counts: Float[Array, " c"] | None = None,
) -> tuple[dict[str, Float[Array, ""]], Arrays, Arrays]:
    """The losses by name, the batch statistics after the last part, and the gradient of the losses' sum.

    Args:
        build: makes the model, to be trained, of parameters and batch statistics.
        params: the parameters, by name.
        batch_stats: batch norm's running statistics, by name.
        batch: the whole batch, of which each of ``config.train.accumulate`` parts has every so-manieth image.
        key: the key of the whole batch, which gives every image its own keys, whatever part it is in.
        config: all settings.
        image_counts: those of ``compute_losses``.
    """
    parts = split_batch(batch, image_keys(key, len(batch.images)), config.train.accumulate)

    def count(part: tuple[Batch, Array]) -> dict[str, Array]:
        stages = sum_losses(build(params, batch_stats), *part, config, image_counts)
        return {name: jnp.asarray(stage.count) for name, stage in stages.items()}

    with jax.named_scope("count"):
        counts = {name: numbers.sum() for name, numbers in lax.map(count, parts).items()}

    def add(carry: tuple[Arrays, Arrays], part: tuple[Batch, Array]) -> tuple[tuple[Arrays, Arrays], Arrays]:
        batch_stats, gradients = carry

        def loss_fn(params: Arrays) -> tuple[Array, tuple[Arrays, Arrays]]:
            model = build(params, batch_stats)
            stages = sum_losses(model, *part, config, image_counts)
            losses = {n: x for name, stage in stages.items() for n, x in stage.means(counts[name]).items()}
            return sum(losses.values(), jnp.zeros(())), (losses, statistics_of(model, batch_stats))

        of_part, (losses, batch_stats) = jax.grad(loss_fn, has_aux=True)(params)
        return (batch_stats, jax.tree.map(jnp.add, gradients, of_part)), losses

    begin = batch_stats, jax.tree.map(jnp.zeros_like, params)
    (batch_stats, gradients), losses = lax.scan(add, begin, parts)
    return {name: of_parts.sum() for name, of_parts in losses.items()}, batch_stats, gradients


def split_batch(batch: Batch, keys: Key[Array, "2 b"], parts: int) -> tuple[Batch, Key[Array, "p 2 n"]]:
    """The batch and its images' keys with a leading axis of ``parts``.

    The parts take the images in turn, so that each device keeps its own, and has as many in every part.
    """

    def split(rows: Array) -> Array:
        return rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)

    by_image = jax.tree.map(split, (batch, keys.T))
    return by_image[0], by_image[1].swapaxes(1, 2)
