"""What the two mask heads have in common: of all classes' logits in a cell, those that count for a label."""

from collections.abc import Callable

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from mrcnn_jax.ops.masks import label_log_probabilities, label_margins


class LabelMasks(nnx.Module):
    """A mask head; with ``softmax`` the background has logits too, the first ones."""

    softmax: bool

    def __call__(
        self,
        regions: Float[Array, "n p p c"],
        labels: Int[Array, " n"],
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n m m"]:
        """Mask logits for the ``labels`` (1 to K) in each region's frame, M = 2 P, float32.

        With ``softmax`` these are margins over the strongest other class (``label_margins``). Batch norm uses
        only the ``valid`` regions.
        """
        if self.softmax:
            return self._of_all_classes(label_margins, regions, labels, valid)
        return self._of_labels(regions, labels, valid)

    def log_probabilities(
        self,
        regions: Float[Array, "n p p c"],
        labels: Int[Array, " n"],
        valid: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n m m 2"]:
        """Log-probabilities of the ``labels`` and of the background in each cell, float32.

        Of a head with ``softmax``.
        """
        return self._of_all_classes(label_log_probabilities, regions, labels, valid)

    def _of_labels(self, regions: Array, labels: Array, valid: Array | None) -> Float[Array, "n m m"]:
        """The logits of the ``labels``, float32."""
        raise NotImplementedError

    def _of_all_classes(
        self, function: Callable[[Array, Array], Array], regions: Array, labels: Array, valid: Array | None
    ) -> Float[Array, "n m m *_"]:
        """``function`` of the logits ``[n ... l]`` of all classes, float32, and the labels."""
        raise NotImplementedError
