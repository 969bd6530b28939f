"""What needs no second process: tests/scripts/test_many_hosts.py starts them."""

import os
import signal

import jax
import pytest

from mrcnn_jax.distributed import hosts


@pytest.mark.parametrize(
    "given",
    [("localhost:9", None, None), (None, 2, None), (None, None, 0), ("localhost:9", 2, None), (None, 1, 0)],
)
def test_all_is_given_or_nothing(given):
    with pytest.raises(ValueError, match="--process_id must be given together"):
        hosts.join(*given, stops_when_asked=False)


def test_the_coordinator_has_a_port():
    with pytest.raises(ValueError, match=r"--coordinator=host: must be host:port, such as host:9876"):
        hosts.join("host", 2, 0, stops_when_asked=False)


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("asked"))
    hosts.join(None, 1, None, stops_when_asked=False)


def _without_cluster(*_, **__):
    raise ValueError("coordinator_address should be defined.")


def test_a_process_that_nobody_started_is_alone(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", _without_cluster)
    hosts.join(stops_when_asked=False)


def test_a_launcher_that_jax_does_not_know(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", _without_cluster)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"OMPI_COMM_WORLD_SIZE is 4, .* give --coordinator"):
        hosts.join(stops_when_asked=False)


def test_alone_all_is_done_at_once():
    assert hosts.alone() and hosts.is_first()
    assert hosts.gather({"a": 1.5}) == [{"a": 1.5}]
    assert not hosts.asked_to_stop(1)
    with pytest.raises(KeyError, match="own"), hosts.together():
        raise KeyError("own")


def test_alone_the_first_sigterm_asks_and_the_second_ends(monkeypatch):
    monkeypatch.setattr(hosts, "_asked", False)
    before = signal.getsignal(signal.SIGTERM)
    try:
        hosts.join(None, 1, None, stops_when_asked=True)
        assert not hosts.asked_to_stop(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert hosts.asked_to_stop(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_others_say_is_heard(monkeypatch):
    said = []

    def gather(value):
        said.append(value)
        return [None, "no such folder"]

    monkeypatch.setattr(hosts, "gather", gather)
    with pytest.raises(ValueError, match=r"^process 1: no such folder$"), hosts.together():
        pass
    with pytest.raises(KeyError), hosts.together():
        raise KeyError("own")
    assert said == [None, "'own'"]


def test_only_the_loss_of_a_process_is_explained():
    with pytest.raises(ConnectionError, match="cannot reach another one"), hosts.noticing_the_dead():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(jax.errors.JaxRuntimeError, match="memory"), hosts.noticing_the_dead():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def test_an_error_is_not_hidden_by_the_loss_of_the_others(monkeypatch):
    def lost(_):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(hosts, "gather", lost)
    with pytest.raises(KeyError, match="own"), hosts.together():
        raise KeyError("own")
