"""A platform in a process of its own, for the benchmarks that load it over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

TOKEN = "benchmark-token"

_SERVE = """
import sys
from pathlib import Path
from watcher.logs import configure_logging
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
configure_logging(level="ERROR")
root, token, database = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None
server = PlatformServer(
    PlatformConfig(token=token, datasource_root=root / "root", data_dir=root / "data", port=0, database_url=database)
)
server.start()
print(server.url, flush=True)
for line in sys.stdin:
    with open("/proc/self/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024, flush=True)
server.stop()
"""


class Running:
    """The server's address and its peak of memory."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def read_peak_mb(self) -> int:
        """Peak of resident memory so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("peak\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call with the token."""
        data = None if body is None else json.dumps(body).encode()
        glue = "&" if "?" in path else "?"
        request = Request(f"{self.url}{path}{glue}token={TOKEN}", data=data, method=method)
        with urlopen(request, timeout=120) as answer:
            content = answer.read()
        return json.loads(content) if content else None


@contextmanager
def run_platform(folder: Path, database_url: str = "") -> Iterator[Running]:
    """Runs a platform over `folder/root`."""
    (folder / "root").mkdir(exist_ok=True)
    command = [sys.executable, "-c", _SERVE, str(folder), TOKEN, database_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the platform did not start")
        try:
            yield Running(process, url)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
