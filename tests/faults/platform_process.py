"""A real platform in a process of its own, always on the same port, to be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.leaks import OUTPUTS
from tests.postgres import free_port
from watcher.platform.settings import PlatformConfig

_START_LIMIT_S = 60.0
TOKEN = "token-of-the-tests"


class PlatformProcess:
    """`watcher platform` over a folder of objects; has the names of a `PlatformServer`, so scenes take either."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = PlatformConfig(
            token=TOKEN, datasource_root=folder / "objects", data_dir=folder / "platform", port=free_port()
        )
        self.config.datasource_root.mkdir(exist_ok=True)
        self.url = f"http://127.0.0.1:{self.config.port}"
        self.log_path = folder / "platform.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it listens."""
        config = self.config
        command = [
            sys.executable,
            "-m",
            "watcher",
            "platform",
            "--host",
            "127.0.0.1",
            "--port",
            str(config.port),
        ]
        command += ["--data-dir", str(config.data_dir), "--datasource-root", str(config.datasource_root)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_"))}
        environ |= {"WATCHER_PLATFORM__TOKEN": TOKEN, "WATCHER_LOG__FORMAT": "json"}
        OUTPUTS.watch(self.log_path, environ=environ)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environ,
                stdout=log,
                stderr=log,
            )
        ends_s = time.monotonic() + _START_LIMIT_S
        while True:
            assert self._process.poll() is None, self.log_path.read_text()[-3000:]
            assert time.monotonic() < ends_s, "the platform does not start"
            try:
                socket.create_connection(("127.0.0.1", config.port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """`kill -9`; harmless if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=20)
            self._process = None
