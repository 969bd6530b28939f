"""The heads' outputs for categories that two data sets share."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig, presets
from mrcnn_jax.runs.categories import Categories
from mrcnn_jax.weights.new_categories import layers_per_category, with_shared_outputs

KNOWN = Categories(names=("cat", "dog", "bird"), ids=(1, 2, 3))
NEW = Categories(names=("fish", "dog"), ids=(1, 2))


@pytest.mark.parametrize(
    ("model", "layer", "each", "background"),
    [
        (ModelConfig(), "box_head.cls_score", 1, 1),
        (ModelConfig(), "box_head.bbox_pred", 4, 0),
        (ModelConfig(box_agnostic=True, box_cascade=presets.CASCADE), "cascade_heads.1.cls_score", 1, 1),
        (ModelConfig(), "mask_head.mask_fcn_logits", 1, 0),
        (ModelConfig(mask_loss="softmax"), "mask_head.mask_fcn_logits", 1, 1),
        (ModelConfig(mask_fcs=2), "mask_head.mask_fc_logits", 9, 0),
        (ModelConfig(mask_fcs=2, mask_loss="softmax"), "mask_head.mask_fc_logits", 9, 1),
    ],
)
def test_by_hand(model, layer, each, background):
    """The dog is the second category of both; the fish, which is new, and the background are the first."""

    def arrays(categories, value):
        outputs = {
            name: (len(categories) + first) * (each if name == layer else 4 if "bbox" in name else 1)
            for name, first in layers_per_category(model).items()
        }
        return {
            f"{name}.{kind}": jnp.asarray(value + np.arange(count, dtype=np.float32) + np.zeros(shape))
            for name, count in outputs.items()
            for kind, shape in (("kernel", (2, 1)), ("bias", (1,)))
        }

    made = with_shared_outputs(arrays(NEW, 0), arrays(KNOWN, 1000), model=model, known=KNOWN, new=NEW)
    first = 1000 + np.arange(background * each)
    fish = background * each + np.arange(each)
    dog = 1000 + (background + 1) * each + np.arange(each)
    expected = np.concatenate([first, fish, dog])
    np.testing.assert_array_equal(made[f"{layer}.bias"], expected)
    np.testing.assert_array_equal(made[f"{layer}.kernel"], [expected, expected])


def test_class_agnostic_layers_are_no_layers_per_category():
    model = ModelConfig(box_agnostic=True, mask_agnostic=True)
    assert list(layers_per_category(model)) == ["box_head.cls_score"]
