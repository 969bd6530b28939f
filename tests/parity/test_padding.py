from dataclasses import replace

import numpy as np
import pytest

from mrcnn_jax.config import DataConfig
from tests.parity.padding import padding, padding_by_side, peer_padding

CONFIG = DataConfig(train_short_sides=(32, 64), long_side=200, canvases=((64, 128), (128, 64)))
SIZES = np.array([[64, 128], [64, 64], [128, 64]])


def test_canvases_by_hand():
    # At a short side of 32 the three images cover 1/4, 1/8 and 1/4 of 64 x 128 pixels.
    assert padding(SIZES, CONFIG) == pytest.approx(1 - (5 / 8 + 5 / 2) / 6)
    # On canvases of 32 x 64 and 64 x 32 they cover the same share as at a short side of 64.
    assert padding_by_side(SIZES, CONFIG) == pytest.approx(1 - 5 / 6)


def test_peers_by_hand():
    config = replace(CONFIG, train_short_sides=(64,))
    apart, together = np.array([0.7, 1.5]), np.array([])
    assert peer_padding(SIZES, config, edges=apart, batch_size=1) == 0
    # Images of 64 x 128, 64 x 64 and 128 x 64 make one batch of 128 x 128.
    assert peer_padding(SIZES, config, edges=together, batch_size=3) == pytest.approx(1 - 5 / 12)
    # Each group has two equal images, which make a batch without padding.
    assert peer_padding(np.repeat(SIZES, 2, axis=0), config, edges=apart, batch_size=2) == 0
    assert peer_padding(np.array([[50, 70]]), config, edges=apart, batch_size=1) == pytest.approx(
        1 - 64 * 90 / (64 * 96)
    )
