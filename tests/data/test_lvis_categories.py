from mrcnn_jax.data.lvis_categories import LVIS


def test_by_hand():
    assert (len(LVIS), LVIS.ids, len(set(LVIS.names))) == (1203, tuple(range(1, 1204)), 1203)
    # Names over the ends of lines, and one with a space.
    assert [LVIS.names[i - 1] for i in (1, 9, 10, 1203)] == ["aerosol_can", "amplifier", "anklet", "zucchini"]
    assert LVIS.names[697] == "monitor_(computer_equipment) computer_monitor"
    assert not any(name != name.strip() or "\n" in name for name in LVIS.names)
