"""What a start loads: each of these costs every daemon memory and time, and only some need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("module", ["watcher.cli", "watcher.platform.server"])
def test_start_does_not_load_what_only_some_need(module):
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert _RARELY_WANTED & set(done.stdout.split()) == set()
