"""What does not fit is refused by name: other versions, other settings, SQLite, poolers, read-only and full servers."""

from __future__ import annotations

import secrets
import socket
import struct
import threading

import psycopg
import pytest
from sqlalchemy import make_url

from tests.waiting import wait_for
from watcher.database.engine import build_database
from watcher.database.server import check_server
from watcher.domain.errors import ConfigError, StoreUnavailableError


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        pytest.param(
            {"WATCHER_WORK_VERSION": "99"}, "works by version 99, the leader", id="another work version"
        ),
        pytest.param(
            {"WATCHER_WATCHES__CAMS__UPLOAD__MODE": "full"},
            "settings differ from the leader's",
            id="other settings of a watch",
        ),
    ],
)
def test_worker_that_differs_from_the_leader_says_so_and_takes_no_run(build_scene, variables, says):
    scene = build_scene()
    replica = scene.add_replica()
    replica.start()
    other = scene.add_worker(**variables)
    other.start()
    wait_for(
        lambda: says in other.read_log(),
        what="it says so",
        explain=scene.explain,
    )
    scene.put_pictures(3)
    same = scene.add_worker()
    same.start()
    scene.wait_until_done(3, limit_s=60)
    assert not other.read_metric("watcher_runs_total")


@pytest.mark.deep
def test_replica_with_other_settings_than_the_leader_says_so(build_scene):
    scene = build_scene()
    replica = scene.add_replica()
    replica.start()
    other = scene.add_replica(WATCHER_WATCHES__CAMS__BATCH__SHARD_SAMPLES="7")
    other.start()
    wait_for(
        lambda: "settings differ from the leader's" in other.read_log(),
        what="it says so",
        explain=scene.explain,
    )
    assert "settings differ" not in replica.read_log()


@pytest.mark.deep
def test_server_that_turns_read_only_for_a_while_stops_everything_and_loses_nothing(
    build_scene, postgres_url
):
    scene = build_scene()
    replica, worker = scene.add_replica(), scene.add_worker()
    replica.start()
    worker.start()
    scene.put_pictures(20)
    scene.wait_until_done(20, limit_s=60)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname

        def turn(mode: str) -> None:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {mode}')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        turn("on")
        scene.put_pictures(20, start=20)
        wait_for(
            lambda: replica.read_metric("watcher_leader") == 0,
            what="nobody leads",
            explain=scene.explain,
        )
        assert "read-only transaction" in replica.read_log()
        assert scene.count_states() == {"done": 20}
        turn("off")
    scene.wait_until_done(40, limit_s=90)
    scene.check_exactly_once(40)


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


@pytest.mark.parametrize("limited", ["role", "database"])
def test_connections_of_the_role_and_the_database_count_too(postgres_url, limited):
    role = f"clerk_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'clerk'")
        name = connection.info.dbname
        target = f"ROLE {role}" if limited == "role" else f'DATABASE "{name}"'
        connection.execute(f"ALTER {target} CONNECTION LIMIT 3")
    url = make_url(postgres_url).set(username=role, password="clerk")
    database = build_database(url.render_as_string(hide_password=False))
    try:
        check_server(database, n_connections=2)
        with pytest.raises(
            ConfigError,
            match=rf"allows 3, \d are in use.*up to 4. Raise the CONNECTION LIMIT of the {limited}",
        ):
            check_server(database, n_connections=4)
    finally:
        database.close()
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}")


def test_server_that_is_read_only_is_refused_by_name(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = build_database(postgres_url)
    with pytest.raises(StoreUnavailableError, match="is read-only: it is a standby, or it was switched"):
        check_server(database, n_connections=2)
    database.close()
