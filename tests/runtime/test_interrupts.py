import gc
import signal
import time

import pytest

from mrcnn_jax.runtime.interrupts import interruptible


@pytest.fixture(autouse=True)
def as_in_a_command():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_block_and_the_handler_is_restored():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_during_garbage_collection_is_not_lost():
    came = []

    def collecting(phase, _):
        if phase == "start" and not came:
            came.append(phase)
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(collecting)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            gc.collect()
            came.append("collected")
            time.sleep(30)
    finally:
        gc.callbacks.remove(collecting)
    assert came == ["start", "collected"]


def test_ctrl_c_in_a_finaliser_is_not_lost():
    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible():
        Finalised()
        time.sleep(30)


def test_a_handler_of_the_programs_own_is_kept():
    noted = []
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    with interruptible():
        signal.raise_signal(signal.SIGINT)
    assert noted == [signal.SIGINT]
