"""Topologies, as they are given on the command line."""

import pytest

from mrcnn_jax.compile_report.chips import CHIPS, Gpu, Topology


@pytest.mark.parametrize(
    ("text", "name", "shape", "count", "words"),
    [
        ("v5e:4x4", "v5e", (4, 4), 16, "16 x v5e"),
        ("v4:2x2x2", "v4", (2, 2, 2), 8, "8 x v4"),
        ("v6e", "v6e", (1,), 1, "v6e"),
        ("h100:8", "h100", (8,), 8, "8 x h100"),
        ("a100", "a100", (1,), 1, "a100"),
    ],
)
def test_a_topology_is_a_chip_and_a_shape(text, name, shape, count, words):
    topology = Topology.parse(text)
    assert (topology.name, topology.shape, topology.count, str(topology)) == (name, shape, count, words)


@pytest.mark.parametrize(
    "text", ["", "v7x", "v5e:", "v5e:4*4", "v5e:0x4", "h100:0", "h100:2x4", "v5e:2x2x2x2", "V5E"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="topology"):
        Topology.parse(text)


def test_the_limits_are_those_of_the_data_sheets_in_order_of_magnitude():
    for name, chip in CHIPS.items():
        assert 16e9 <= chip.memory < 200e9, name
        assert 8e11 <= chip.bandwidth < 1e13, name
        assert 1e9 < chip.clock < 2e9, name
        if isinstance(chip, Gpu):
            assert f"core_count: {chip.cores}" in chip.target_config
            assert chip.bfloat16_rate > chip.float32_rate > 1e14
