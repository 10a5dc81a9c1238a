"""Time and memory of `from watcher.lightly import ApiWorkflowClient`, beside lightly 1.5.26."""

from __future__ import annotations

import sys

from benchmarks.client_servers import find_peer, report, run_program

MOST_SECONDS = 0.35
MOST_MB = 50

_PROGRAM = """
import time
begun = time.perf_counter()
exec({statement!r})
seconds = time.perf_counter() - begun
import json, re
# Not `ru_maxrss`, into which a process inherits the peak of the one that started it.
kilobytes = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps([seconds, kilobytes / 1024]))
"""


def main() -> int:
    """Prints the least of nine processes each, which other work of the machine disturbs least; 0 if both hold."""
    ours = _measure(sys.executable, "from watcher.lightly import ApiWorkflowClient")
    theirs = _measure(find_peer("1.5.26"), "from lightly.api import ApiWorkflowClient")
    print(f"   lightly 1.5.26: {theirs[0]:.2f} s, {theirs[1]:.0f} MB")
    in_time = report("seconds", ours[0], MOST_SECONDS, at_least=False)
    small = report("MB", ours[1], MOST_MB, at_least=False)
    return int(not (in_time and small))


def _measure(python: str, statement: str) -> tuple[float, float]:
    environment = {"LIGHTLY_DID_VERSION_CHECK": "True"}
    runs = [
        run_program(python, _PROGRAM.format(statement=statement), environment=environment) for _ in range(9)
    ]
    return min(run[0] for run in runs), min(run[1] for run in runs)


if __name__ == "__main__":
    sys.exit(main())
