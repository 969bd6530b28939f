import pytest

from mrcnn_jax.compile_report.programs import Objects, lower_predict
from mrcnn_jax.distributed.sharding import make_mesh


def test_images_that_devices_cannot_share_evenly_are_refused(tiny_config):
    message = r"test\.batch_size \(1\) must be divisible by the number of devices \(8\)"
    with pytest.raises(ValueError, match=message):
        lower_predict(tiny_config, make_mesh(), (64, 64), objects=Objects(4))
