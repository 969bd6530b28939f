import jax.numpy as jnp
import pytest

from mrcnn_jax.training.metrics import STAGES, StepLog


def _metrics(**changes):
    values = {"box": 1.0, "mask": 2.0, "loss": 3.0, "gradient_norm": 1.0, "lr": 0.1} | changes
    return {name: jnp.asarray(value) for name, value in values.items()}


def test_a_line_and_the_means():
    log = StepLog(total_steps=1000, batch_size=4)
    log.add(9, _metrics(box=1.0, loss=3.0, lr=0.1), waited=0.0)
    log.add(10, _metrics(box=3.0, loss=5.0, lr=0.2), waited=0.0)
    line, means = log.flush()
    assert line.startswith("step   10/1000  loss 4.00  box 2.00 mask 2.00  lr 0.2  ")
    assert "  eta " in line
    assert means["box"] == 2.0
    assert means["lr"] == pytest.approx(0.2)


def test_a_line_of_all_losses_is_short(monkeypatch):
    losses = {name: 0.123 for names in STAGES.values() for name in names} | {"keypoint": 3.456}
    log = StepLog(total_steps=2800, batch_size=8)
    log.add(460, _metrics(**losses, loss=4.071, lr=0.000262), waited=0.0)
    monkeypatch.setattr(log, "restart_clock", lambda: 0.25)
    line, _ = log.flush()
    assert line == (
        "step  460/2800  loss 4.07  rpn 0.12+0.12 box 0.12+0.12 mask 0.12 keypoint 3.46  lr 0.00026  "
        "32 img/s  eta 9:45"
    )


def test_a_cascade_shows_each_of_its_heads():
    log = StepLog(total_steps=10, batch_size=4)
    log.add(
        1,
        _metrics(**dict.fromkeys(("box_class", "box_2", "box_class_2", "box_3", "box_class_3"), 0.5)),
        waited=0.0,
    )
    assert "  box 0.50+1.00 box2 0.50+0.50 box3 0.50+0.50 mask 2.00  " in log.flush()[0]


@pytest.mark.parametrize(("waited", "said"), [(0.3, "  30% waiting for data"), (0.05, "")])
def test_a_line_says_where_data_are_slow(waited, said, monkeypatch):
    log = StepLog(total_steps=10, batch_size=4)
    log.add(1, _metrics(), waited=waited)
    monkeypatch.setattr(log, "restart_clock", lambda: 1.0)
    line, means = log.flush()
    assert line == f"step  1/10  loss 3.00  box 1.00 mask 2.00  lr 0.1  4.0 img/s{said}  eta 0:09"
    assert means["waiting_for_data"] == waited


def test_a_loss_that_is_not_finite_names_step_and_loss():
    log = StepLog(total_steps=1000, batch_size=4)
    log.add(7, _metrics(), waited=0.0)
    log.add(8, _metrics(mask=float("nan"), loss=float("nan")), waited=0.0)
    log.add(9, _metrics(box=float("inf")), waited=0.0)
    with pytest.raises(
        FloatingPointError, match=r"step 8: loss is nan, mask is nan \(the others: box 1, .*lower"
    ):
        log.flush()


def test_a_line_right_after_the_clock_was_restarted_has_no_rate():
    log = StepLog(total_steps=10, batch_size=4)
    log.add(1, _metrics(), waited=0.0)
    log.restart_clock()
    line, means = log.flush()
    assert line == "step  1/10  loss 3.00  box 1.00 mask 2.00  lr 0.1"
    assert "images_per_second" not in means


def test_compilations_are_left_out_of_the_rate(monkeypatch):
    now = 0.0
    monkeypatch.setattr("mrcnn_jax.training.metrics.time.perf_counter", lambda: now)
    log = StepLog(total_steps=10, batch_size=4)
    log.add(1, _metrics(), waited=0.0)
    now = 61.0
    log.settle()
    log.leave_out(60.0)
    log.add(2, _metrics(), waited=0.0)
    now = 62.0
    line, means = log.flush()
    assert means["images_per_second"] == 4.0 and line.endswith("  eta 0:08")


def test_settling_without_steps():
    StepLog(total_steps=10, batch_size=4).settle()
