"""A running platform over real HTTP, on SQLite and on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.platform.caller import Caller
from tests.leaks import OUTPUTS
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

TOKEN = "first-user-token"
OUTPUTS.know(TOKEN)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that datasources may lie in, with one datasource `in`."""
    folder = tmp_path / "root" / "in"
    folder.mkdir(parents=True)
    return folder.parent


@pytest.fixture
def build_server(tmp_path: Path, root: Path) -> Iterator[Callable[..., PlatformServer]]:
    """Starts platforms over the same data; all are stopped at the end."""
    servers: list[PlatformServer] = []

    def build(*, clock=None, work: bool = True, **changes) -> PlatformServer:
        settings = {
            "token": TOKEN,
            "datasource_root": root,
            "data_dir": tmp_path / "data",
            "port": 0,
            "isolate_jobs": False,
        }
        server = PlatformServer(PlatformConfig(**{**settings, **changes}), clock=clock, work=work)
        server.start()
        servers.append(server)
        return server

    yield build
    for server in servers:
        server.stop(5.0)


@pytest.fixture
def server(build_server, database_url: str) -> Iterator[PlatformServer]:
    """One platform on each kind of database; stopped before the database goes."""
    server = build_server(database_url=database_url)
    yield server
    server.stop(5.0)


@pytest.fixture
def api(server: PlatformServer) -> Iterator[Caller]:
    """Calls it with the first user's token."""
    with Caller(server.url, TOKEN) as caller:
        yield caller


@pytest.fixture
def light_api(build_server) -> Iterator[Caller]:
    """A platform on SQLite alone, for what does not depend on the database."""
    with Caller(build_server(page_size=3).url, TOKEN) as caller:
        yield caller
