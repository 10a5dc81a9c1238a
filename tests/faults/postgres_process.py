"""A Postgres server of one test's own, always on the same port, to be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import postgres

_LIMIT_S = 60.0


class PostgresProcess:
    """Made and started at once; `url` names its one database.

    Unlike the server that other tests share it keeps what it committed, however it dies.
    """

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self._folder = folder
        self._bin_dir = postgres.readable_binaries(postgres.find_binaries(), folder)
        password = postgres._make_cluster(self._bin_dir, folder)
        self.port = postgres.free_port()
        self.url = postgres.Server(port=self.port, password=password, bin_dir="", pid=0).url("postgres")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, again and again while the one before still lets go, and waits until it answers."""
        ends_s = time.monotonic() + _LIMIT_S
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._launch()
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            assert time.monotonic() < ends_s, (self._folder / "postgres.log").read_text()[-3000:]
            time.sleep(0.1)

    def _launch(self) -> subprocess.Popen[bytes]:
        options = {**postgres._SERVER_OPTIONS, "synchronous_commit": "on", "full_page_writes": "on"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "postgres.log").open("ab") as log:
            return subprocess.Popen(
                [self._bin_dir / "postgres", "-D", self._folder / "cluster", "-p", str(self.port), *settings],
                preexec_fn=postgres._become_unprivileged,  # noqa: PLW1509 - one system call after another, no locks
                env=postgres._environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT cuts the sessions and ends in order, SIGQUIT ends at once, SIGKILL without a word."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=_LIMIT_S)
            self._process = None


@contextlib.contextmanager
def open_postgres_process() -> Iterator[PostgresProcess]:
    """A Postgres that may be killed; skips the test where there is none."""
    try:
        postgres.find_binaries()
    except postgres.PostgresMissingError as missing:
        pytest.skip(str(missing))
    folder = Path(tempfile.mkdtemp(prefix="tests-own-postgres-", dir=postgres.shared_folder()))
    started = PostgresProcess(folder)
    try:
        yield started
    finally:
        started.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
