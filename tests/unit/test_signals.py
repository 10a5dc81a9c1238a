from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# Busy with the event, as the main thread of a daemon is for a moment of each second.
WAITS = """
from watcher.signals import watch_signals
asked = watch_signals()
print("watching", flush=True)
while not asked.wait(0.0):
    pass
"""
DRAINS = WAITS + "import time; print('draining', flush=True); time.sleep(60)"
TRIES = 8  # each one fails three times out of four where a handler sets the event


def _start(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "watching\n"
    return process


def _end(process: subprocess.Popen[str]) -> int:
    try:
        return process.wait(timeout=30)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.scenario(number=13)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_amid_a_wait_sets_the_event(number):
    for _ in range(TRIES):
        process = _start(WAITS)
        process.send_signal(number)
        assert _end(process) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once_with_its_number(number):
    process = _start(DRAINS)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(number)
    assert _end(process) == 128 + number


def test_two_signals_at_one_moment_end_at_once():
    for _ in range(TRIES):
        process = _start(DRAINS)
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            os.kill(process.pid, number)
        assert _end(process) in {128 + signal.SIGINT, 128 + signal.SIGTERM}
