from __future__ import annotations

import io
import sys
import types

from watcher.lightly import progress as progress_module
from watcher.lightly.progress import Progress, describe_progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silence_prints_nothing():
    stream = io.StringIO()
    with Progress("work", 3, verbose=False, stream=stream) as progress:
        progress.add(3)
    assert stream.getvalue() == ""
    assert progress.n_done == 3


def test_a_log_file_gets_whole_lines_now_and_then(monkeypatch):
    stream = io.StringIO()
    with Progress("work", 1000, verbose=True, stream=stream) as progress:
        for _ in range(1000):
            progress.add()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "\r" not in stream.getvalue()
    assert lines[0].startswith("work: 100% [########################] 1000/1000")
    monkeypatch.setattr(progress_module, "_LOG_EVERY_S", 0.0)
    stream = io.StringIO()
    with Progress("work", 2, verbose=True, stream=stream) as progress:
        progress.add()
    assert len(stream.getvalue().splitlines()) == 2


def test_a_terminal_gets_one_line_that_renews_itself(monkeypatch):
    monkeypatch.setattr(progress_module, "_TERMINAL_EVERY_S", 0.0)
    stream = _Terminal()
    with Progress("work", 4, verbose=True, stream=stream) as progress:
        for _ in range(4):
            progress.add()
    assert stream.getvalue().count("\r") == 5
    assert stream.getvalue().count("\n") == 1


def test_a_notebook_is_like_a_terminal(monkeypatch):
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    stream = io.StringIO()
    with Progress("work", 1, verbose=True, stream=stream):
        pass
    assert stream.getvalue().startswith("\r")


def test_a_closed_stream_does_not_stop_the_work():
    stream = io.StringIO()
    with Progress("work", 1, verbose=True, stream=stream) as progress:
        stream.close()
        progress.add()
    assert progress.n_done == 1


def test_describe_progress_tells_rate_and_time_left():
    assert "5/10 (0.5/s, 0:10 left)" in describe_progress("x", 5, 10, 10.0)
    assert "1:00:00 left" in describe_progress("x", 1, 3601, 1.0)
    assert describe_progress("x", 7, 0, 2.0) == "x: 7 (3.5/s)"
    assert "0/10" in describe_progress("x", 0, 10, 0.0)
