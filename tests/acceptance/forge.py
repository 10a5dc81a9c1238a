"""Starts daemons quickly: a process that has imported everything forks one for each start.

Each is a process of its own with its own signals, files and threads, and dies alone; only the second or two of
importing is saved. This file is also that process's program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.leaks import OUTPUTS


class Forge:
    """The process that forks; one request at a time."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # More threads than this one could not be forked.
            env={**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def start(self, arguments: list[str], *, environ: dict[str, str], out: Path, log: Path) -> int:
        """Runs `watcher` with these arguments; returns the process's id."""
        OUTPUTS.watch(out, log, environ=environ, arguments=arguments)
        pid = self._ask(arguments=arguments, environ=environ, out=str(out), log=str(log))
        assert pid is not None
        return pid

    def wait(self, pid: int, *, limit_s: float) -> int | None:
        """The exit code as `subprocess` has it, negative for a signal; None if it still runs at the limit."""
        return self._ask(wait=pid, limit_s=limit_s)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def _ask(self, **request: Any) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: int | None = json.loads(self._process.stdout.readline())
        return answer


def _serve() -> None:
    import watcher.cli.app  # noqa: F401 - what every child needs

    for line in sys.stdin:
        request = json.loads(line)
        answer = _wait(request["wait"], request["limit_s"]) if "wait" in request else _fork(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _run(request)
    except BaseException:  # noqa: BLE001 - the child must never go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(request: dict[str, Any]) -> int:
    from watcher.__main__ import main
    from watcher.domain import crash_points

    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["log"])):
        handle = os.open(name, os.O_RDWR | os.O_CREAT | (0 if number == 0 else os.O_APPEND), 0o600)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(request["environ"])
    crash_points.arm()
    sys.argv = ["watcher", *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def _wait(pid: int, limit_s: float) -> int | None:
    ends_s = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends_s:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    # The folder of this file holds test modules that shadow nothing, but need not be importable either.
    sys.path.pop(0)
    _serve()
