"""What does not fit is refused by name: other versions, other settings, SQLite, poolers, read-only and full servers."""

from __future__ import annotations

import socket
import struct
import threading

import psycopg
import pytest

from tests.scale.scene import wait_for
from watcher.database import build_database
from watcher.database_server import check_server
from watcher.domain.errors import ConfigError, StoreUnavailableError


def test_worker_of_another_work_version_waits_and_says_so(build_scene):
    scene = build_scene()
    replica = scene.add_replica()
    replica.start()
    other = scene.add_worker(WATCHER_WORK_VERSION="99")
    other.start()
    wait_for(
        lambda: "works by version 99, the leader" in other.read_log(),
        limit_s=60,
        what="it says so",
        explain=scene.explain,
    )
    scene.put_pictures(3)
    same = scene.add_worker()
    same.start()
    scene.wait_until_done(3, limit_s=60)
    assert not other.read_metric("watcher_runs_total")


def test_worker_with_other_settings_of_a_watch_takes_none_of_its_runs(build_scene):
    scene = build_scene()
    replica = scene.add_replica()
    replica.start()
    other = scene.add_worker(WATCHER_WATCHES__CAMS__UPLOAD__MODE="full")
    other.start()
    wait_for(
        lambda: "settings differ from the leader's" in other.read_log(),
        limit_s=60,
        what="it says so",
        explain=scene.explain,
    )
    scene.put_pictures(3)
    same = scene.add_worker()
    same.start()
    scene.wait_until_done(3, limit_s=60)
    assert not other.read_metric("watcher_runs_total")


class Pooler:
    """Passes bytes on as a pooler does: it greets with a process id of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, change: bool) -> None:
        try:
            while data := source.recv(65536):
                place = data.find(b"K\x00\x00\x00\x0c") if change else -1
                if place >= 0:
                    data = data[: place + 5] + struct.pack("!I", 4_000_000) + data[place + 9 :]
                    change = False
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def close(self) -> None:
        self._listener.close()


def test_pooler_before_the_server_is_refused_by_name(postgres_url):
    direct = build_database(postgres_url)
    check_server(direct, n_connections=2)
    url = direct.engine.url
    direct.close()
    pooler = Pooler(url.host, url.port)
    pooled = build_database(
        url.set(host="127.0.0.1", port=pooler.port)
        .update_query_dict({"sslmode": "disable"})
        .render_as_string(hide_password=False)
    )
    try:
        with pytest.raises(ConfigError, match="a connection pooler stands before the Postgres"):
            check_server(pooled, n_connections=2)
    finally:
        pooled.close()
        pooler.close()


def test_server_with_too_few_connections_is_refused_with_the_numbers(postgres_url):
    database = build_database(postgres_url)
    with pytest.raises(ConfigError, match=r"allows \d+, \d+ are in use, and this process needs up to 100000"):
        check_server(database, n_connections=100_000)
    database.close()


def test_server_that_is_read_only_is_refused_by_name(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = build_database(postgres_url)
    with pytest.raises(StoreUnavailableError, match="is read-only: it is a standby, or it was switched"):
        check_server(database, n_connections=2)
    database.close()
