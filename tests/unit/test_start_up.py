"""What a start loads: each of these costs every daemon memory and time, and only some need it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Twenty megabytes, wanted by the first run and not before.
_WANTED_LATER = {"numpy", "PIL"}
_RARELY_WANTED = {
    "alembic",
    "cryptography",
    "jsonschema",
    "obstore",
    "onnxruntime",
    "opentelemetry",
    "procrastinate",
    "pyarrow",
    "usearch",
}


@pytest.mark.parametrize("module", ["watcher.cli.app", "watcher.platform.server"])
def test_start_does_not_load_what_only_some_need(module):
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (_RARELY_WANTED | _WANTED_LATER) & set(done.stdout.split()) == set()


_IDLE = """
import os, sys, time
from urllib.request import urlopen
from watcher.daemon import Daemon
from watcher.settings.root import load_settings

daemon = Daemon(load_settings(os.environ))
addresses = daemon.start()
ends_s = time.monotonic() + 60
while '"mark_s":null' in urlopen(f"{addresses.http}/api/v1/status").read().decode():
    assert time.monotonic() < ends_s
    time.sleep(0.05)
for url in (f"{addresses.http}/", f"{addresses.probes}/metrics", f"{addresses.server}/login"):
    urlopen(url).read()
assert daemon.stop()
print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""


def test_idle_daemon_with_the_platform_inside_has_loaded_nothing_that_only_pictures_want(tmp_path):
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("WATCHER_", "LIGHTLY_"))
    }
    environ |= {"WATCHER_DATA_DIR": str(tmp_path), "WATCHER_HTTP__PORT": "0", "WATCHER_PLATFORM__PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _IDLE], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = next(line for line in done.stdout.splitlines() if line.startswith("loaded")).split()
    # A new store is made by Alembic.
    assert (_RARELY_WANTED | _WANTED_LATER) & set(loaded) <= {"alembic"}
