import jax.numpy as jnp
import pytest

from mrcnn_jax.training.metrics import StepLog


def _metrics(**changes):
    values = {"box": 1.0, "mask": 2.0, "loss": 3.0, "gradient_norm": 1.0, "learning_rate": 0.1} | changes
    return {name: jnp.asarray(value) for name, value in values.items()}


def test_a_line_and_the_means():
    log = StepLog(total_steps=1000, batch_size=4)
    log.add(9, _metrics(box=1.0, loss=3.0, learning_rate=0.1), waited=0.0)
    log.add(10, _metrics(box=3.0, loss=5.0, learning_rate=0.2), waited=0.0)
    line, means = log.flush()
    assert line.startswith("step   10/1000  loss 4.000  (box 2.000, mask 2.000)  rate 0.2")
    assert line.endswith("left")
    assert means["box"] == 2.0
    assert means["learning_rate"] == pytest.approx(0.2)


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
    assert line == "step  1/10  loss 3.000  (box 1.000, mask 2.000)  rate 0.1"
    assert "images_per_second" not in means
