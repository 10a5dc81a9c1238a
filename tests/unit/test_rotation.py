"""Secrets in files are taken up while the process runs; what cannot be used leaves the old one in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from tests.unit.lightly.servers import Reply, Seen, serve
from watcher.database.engine import build_database
from watcher.domain.backoff import Backoff
from watcher.domain.errors import ConfigError, StoreUnavailableError, UnauthorizedException
from watcher.lightly.transport import Transport
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.rotation import Rotation
from watcher.settings.root import load_settings

OLD, NEW = "the-0ld-secret", "the-new-s3cret"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(OLD + "\n")
    return path


def follow(secret: Path, take_up: Callable[[str], None]) -> Rotation:
    settings = load_settings({"WATCHER_CONTROL__TOKEN_FILE": str(secret)})
    rotation = Rotation(settings)
    rotation.follow_secret("WATCHER_CONTROL__TOKEN", take_up)
    return rotation


def replace(path: Path, text: str) -> None:
    """As Kubernetes and careful people do it."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def test_secret_that_changed_is_taken_up_once(secret):
    taken: list[str] = []
    rotation = follow(secret, taken.append)
    rotation.check()
    assert taken == []
    replace(secret, NEW + "\n")
    rotation.check()
    rotation.check()
    assert taken == [NEW]


def test_secret_behind_a_link_that_moved_is_taken_up(tmp_path):
    for name, text in (("1", OLD), ("2", NEW)):
        (tmp_path / name).write_text(text)
    link = tmp_path / "link"
    link.symlink_to("1")
    taken: list[str] = []
    rotation = follow(link, taken.append)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(link)
    rotation.check()
    assert taken == [NEW]


@pytest.mark.parametrize("broken", ["", None])
def test_secret_that_is_empty_or_gone_for_a_moment_is_waited_for(secret, broken):
    taken: list[str] = []
    rotation = follow(secret, taken.append)
    secret.unlink()
    if broken is not None:
        secret.write_text(broken)
    rotation.check()
    assert taken == []
    replace(secret, NEW)
    rotation.check()
    assert taken == [NEW]


def test_secret_that_is_refused_is_tried_again_and_not_in_the_log(secret, capfd):
    taken: list[str] = []

    def refuse_first(token: str) -> None:
        taken.append(token)
        if len(taken) == 1:
            raise ConfigError("too short")

    rotation = follow(secret, refuse_first)
    replace(secret, NEW)
    rotation.check()
    rotation.check()
    rotation.check()
    assert taken == [NEW, NEW]
    told = "".join(capfd.readouterr())
    assert NEW not in told
    assert OLD not in told


def test_secret_in_a_variable_is_not_followed(secret):
    rotation = Rotation(load_settings({"WATCHER_CONTROL__TOKEN": OLD}))
    rotation.follow_secret("WATCHER_CONTROL__TOKEN", pytest.fail)
    replace(secret, NEW)
    rotation.check()


def test_call_refused_with_the_old_token_is_made_again_with_the_new_one():
    seen: list[str] = []

    def answer(request: Seen) -> Reply:
        seen.append(request.query["token"])
        return Reply(status=200 if request.query["token"] == NEW else 401, body=[])

    with serve(answer) as server:
        transport = Transport(
            server=server.url,
            token=OLD,
            retry=Backoff(base_s=0.01, cap_s=0.02, max_attempts=2),
            observer=lambda tried: transport.secret.replace(NEW) if tried.code == "401" else None,
        )
        transport.get_json("/v1/datasets", type=list)
        assert seen == [OLD, NEW]
        assert OLD not in transport.hide_secrets(f"{OLD} {NEW}")
        transport.close()


def test_call_refused_with_a_token_that_did_not_change_is_made_once():
    seen: list[str] = []

    def answer(request: Seen) -> Reply:
        seen.append(request.query["token"])
        return Reply(status=401, body={"code": "UNAUTHORIZED", "error": "no"})

    with serve(answer) as server:
        transport = Transport(server=server.url, token=OLD)
        with pytest.raises(UnauthorizedException):
            transport.get_json("/v1/datasets", type=list)
        transport.close()
    assert seen == [OLD]


def test_new_password_of_the_store_opens_new_connections(postgres_url):
    admin = sqlalchemy.create_engine(
        sqlalchemy.make_url(postgres_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    user = f"rotating_{os.getpid()}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {user} LOGIN PASSWORD '{OLD}'")
    url = sqlalchemy.make_url(postgres_url).set(username=user, password=OLD)
    database = build_database(url.render_as_string(hide_password=False))
    try:
        with database.read() as session:
            session.execute(sqlalchemy.text("SELECT 1"))
        with pytest.raises(ConfigError, match="restart") as caught:
            database.credentials.replace("postgresql://me:5ecr3t@elsewhere/db")
        assert "5ecr3t" not in str(caught.value)
        database.credentials.replace(url.set(username=f"{user}_gone").render_as_string(hide_password=False))
        database.engine.dispose()
        with pytest.raises(StoreUnavailableError), database.read() as session:
            session.execute(sqlalchemy.text("SELECT 1"))
        database.credentials.replace(url.set(password=OLD).render_as_string(hide_password=False))
        with database.read() as session:
            assert session.execute(sqlalchemy.text("SELECT current_user")).scalar() == user
    finally:
        database.close()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP ROLE {user}")
        admin.dispose()


def test_new_token_of_the_embedded_platform_ends_the_old_one(tmp_path):
    (tmp_path / "root").mkdir()
    server = PlatformServer(
        PlatformConfig(token=OLD, datasource_root=tmp_path / "root", data_dir=tmp_path / "data", port=0)
    )
    server.start()
    try:
        with pytest.raises(ConfigError):
            server.replace_token("short")
        server.replace_token(NEW)
        transport = Transport(server=server.url, token=NEW)
        assert transport.get_json("/v1/datasets", type=list) == []
        transport.close()
        old = Transport(server=server.url, token=OLD)
        with pytest.raises(UnauthorizedException):
            old.get_json("/v1/datasets", type=list)
        old.close()
    finally:
        server.stop(5)
