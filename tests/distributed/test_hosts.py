"""Tests that need no second process; tests/commands/test_many_hosts.py has those that do."""

import os
import signal

import jax
import pytest

from mrcnn_jax.distributed import hosts


@pytest.mark.parametrize(
    "given",
    [("localhost:9", None, None), (None, 2, None), (None, None, 0), ("localhost:9", 2, None), (None, 1, 0)],
)
def test_arguments_are_given_together_or_not_at_all(given):
    with pytest.raises(ValueError, match="--process_id must be given together"):
        hosts.join(*given, handle_sigterm=False)


def test_the_coordinator_needs_a_port():
    with pytest.raises(ValueError, match=r"--coordinator=host: must be host:port, such as host:9876"):
        hosts.join("host", 2, 0, handle_sigterm=False)


def test_one_process_does_not_detect_others(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("called"))
    hosts.join(None, 1, None, handle_sigterm=False)


def _without_cluster(*_, **__):
    raise ValueError("coordinator_address should be defined.")


def test_a_process_without_a_launcher_runs_alone(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", _without_cluster)
    hosts.join(handle_sigterm=False)


def test_a_launcher_unknown_to_jax_is_an_error(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", _without_cluster)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"OMPI_COMM_WORLD_SIZE is 4, .* give --coordinator"):
        hosts.join(handle_sigterm=False)


def test_a_pod_that_jax_does_not_recognise_is_an_error(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", _without_cluster)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    with pytest.raises(ValueError, match=r"JOB_COMPLETION_INDEX is 2: .* install jax\[k8s\], or give"):
        hosts.join(handle_sigterm=False)
    hosts.join(num_processes=1, handle_sigterm=False)
    assert hosts.is_single_process()


def test_collectives_with_a_single_process():
    assert hosts.is_single_process() and hosts.is_main_process()
    assert hosts.all_gather({"a": 1.5}) == [{"a": 1.5}]
    assert not hosts.should_stop(1)
    with pytest.raises(KeyError, match="own"), hosts.fail_together():
        raise KeyError("own")


def test_a_single_process_notes_sigterm_and_others_pass_ctrl_c_on_as_sigterm(monkeypatch):
    noted, sent = [], []
    monkeypatch.setattr(hosts.stopping, "note", lambda *signals, **options: noted.append((signals, options)))
    hosts.join(None, 1, None, handle_sigterm=False)
    assert noted == []
    hosts.join(None, 1, None, handle_sigterm=True)
    assert noted == [((signal.SIGTERM,), {})]

    monkeypatch.setattr(hosts, "is_single_process", lambda: False)
    monkeypatch.setattr(hosts, "connect", lambda mesh: None)
    monkeypatch.setattr(hosts.os, "kill", lambda *arguments: sent.append(arguments))
    hosts.join(None, 1, None, handle_sigterm=True)
    signals, options = noted[1]
    assert signals == ()
    options["forward"]()
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_a_noted_signal_stops_a_single_process(monkeypatch):
    assert not hosts.should_stop(1) and hosts.stop_signal() == signal.SIGTERM
    monkeypatch.setattr(hosts.stopping, "_received", signal.SIGINT)
    assert hosts.should_stop(2) and hosts.stop_signal() == signal.SIGINT


def test_errors_are_exchanged(monkeypatch):
    sent = []

    def all_gather(value):
        sent.append(value)
        return [None, "no such folder"]

    monkeypatch.setattr(hosts, "all_gather", all_gather)
    with pytest.raises(ValueError, match=r"^process 1: no such folder$"), hosts.fail_together():
        pass
    with pytest.raises(KeyError), hosts.fail_together():
        raise KeyError("own")
    assert sent == [None, "'own'"]


def test_only_a_lost_process_is_explained():
    with pytest.raises(ConnectionError, match="cannot reach another process"), hosts.explain_lost_process():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(jax.errors.JaxRuntimeError, match="memory"), hosts.explain_lost_process():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def test_an_error_is_not_hidden_by_losing_the_others(monkeypatch):
    def lost(_):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(hosts, "all_gather", lost)
    with pytest.raises(KeyError, match="own"), hosts.fail_together():
        raise KeyError("own")
