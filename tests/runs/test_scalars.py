import pytest
from tensorboardX import SummaryWriter

from mrcnn_jax.runs.scalars import read_scalars


def write(folder, values, **options):
    with SummaryWriter(str(folder), **options) as writer:
        for step, value in values:
            writer.add_scalar("train/loss", value, step)


def test_by_hand(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("train/loss", 2.0, 20)
        writer.add_scalar("train/loss", 0.5, 40)
        writer.add_scalar("train/lr", 0.25, 20)
        writer.add_text("config", "no scalar", 0)
    assert read_scalars(tmp_path) == {"train/loss": [(20, 2.0), (40, 0.5)], "train/lr": [(20, 0.25)]}
    assert read_scalars(tmp_path / "absent") == {}


def test_what_an_interrupted_run_wrote_later_is_dropped(tmp_path):
    write(tmp_path, [(10, 3.0), (20, 2.0), (30, 1.0)])
    write(tmp_path, [(20, 4.0)], purge_step=11, filename_suffix=".again")
    assert read_scalars(tmp_path)["train/loss"] == [(10, 3.0), (20, 4.0)]


def test_damaged_files(tmp_path):
    write(tmp_path, [(10, 3.0), (20, 2.0)])
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    assert read_scalars(tmp_path)["train/loss"] == [(10, 3.0)]
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=rf"{path.name}: not an event file of TensorBoard: a record of"):
        read_scalars(tmp_path)
    path.write_bytes(data[:8] + bytes(4) + b"\xff" * 200)
    with pytest.raises(ValueError, match=rf"{path.name}: not an event file of TensorBoard: Error"):
        read_scalars(tmp_path)
