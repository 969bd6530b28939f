"""Each case in a process of its own, which prints a line for each signal that it is to get."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# "busy" is a computation in C, during which Python's own signal handlers do not run.
PROGRAM = """
import contextlib, hashlib, os, signal, sys, time
from mrcnn_jax.distributed import stopping

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run in the background, which ignores it

def wait():
    print("ready", flush=True)
    end = time.monotonic() + 30
    while stopping.received() is None and time.monotonic() < end:
        time.sleep(0.01)

def busy():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)

{body}
"""


def run(body: str, *signals: int, pause: float = 0.0) -> tuple[int, str, str]:
    """The exit code and output of a process that is sent the signals, ``pause`` seconds apart."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(pause)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted(number: int) -> None:
    body = """
stopping.note(signal.SIGTERM)
with stopping.catching_interrupts():
    assert stopping.received() is None
    wait()
print(stopping.received())
"""
    code, out, err = run(body, number)
    assert (code, out) == (0, f"{int(number)}\n")
    said = "stopping after this step; Ctrl-C again ends at once\n"
    assert err == (said if number == signal.SIGINT else "")


def test_a_second_one_ends_a_process_that_computes() -> None:
    body = """
stopping.note(signal.SIGTERM)
with stopping.catching_interrupts():
    busy()
"""
    begin = time.monotonic()
    code, _, err = run(body, signal.SIGINT, signal.SIGINT, pause=1.2)
    assert code == 130 and "Ctrl-C again" in err
    assert time.monotonic() - begin < 30


def test_a_signal_that_is_sent_twice_is_one() -> None:
    body = """
stopping.note(signal.SIGTERM)
with stopping.catching_interrupts():
    wait()
    time.sleep(0.5)
print("saved")
"""
    assert run(body, signal.SIGINT, signal.SIGINT, pause=0.05)[:2] == (0, "saved\n")


@pytest.mark.parametrize("note", ["", "stopping.note(signal.SIGTERM)"])
def test_ctrl_c_interrupts_as_ever_outside_the_context_and_if_nothing_is_noted(note: str) -> None:
    context = "" if note else "with stopping.catching_interrupts(): wait()"
    body = f"""
{note}
try:
    {context or "wait()"}
except KeyboardInterrupt:
    print("interrupted", stopping.received())
"""
    assert run(body, signal.SIGINT) == (0, "interrupted None\n", "")


def test_ctrl_c_stays_ignored() -> None:
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
stopping.note(signal.SIGTERM)
with stopping.catching_interrupts():
    wait()
print(stopping.received())
"""
    assert run(body, signal.SIGINT, signal.SIGTERM, pause=0.1)[:2] == (0, f"{int(signal.SIGTERM)}\n")


def test_ctrl_c_is_forwarded_once() -> None:
    body = """
stopping.note(forward=lambda: print("forwarded", flush=True))
with stopping.catching_interrupts():
    wait()
    time.sleep(0.3)
"""
    assert run(body, signal.SIGINT, signal.SIGINT, pause=0.05)[:2] == (0, "forwarded\n")
