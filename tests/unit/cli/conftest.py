from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import Result

from tests.builders import run_command
from tests.stores import migrated_file, migrated_url, store_url
from watcher.database.engine import Database, build_database

__all__ = ["migrated_file", "migrated_url", "store_url"]

Command = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def command(data_dir: Path) -> Command:
    """Runs a command over a data directory of the test's own, with free ports."""

    def run(*arguments: str, **environ: str) -> Result:
        own = {
            "WATCHER_DATA_DIR": str(data_dir),
            "WATCHER_HTTP__PORT": "0",
            "WATCHER_PLATFORM__PORT": "0",
            **environ,
        }
        return run_command(*arguments, **own)

    return run


@pytest.fixture
def stored_command(command: Command, store_url: str) -> Command:
    """The same over a store with its tables, once on SQLite and once on Postgres."""
    return lambda *arguments, **environ: command(*arguments, WATCHER_STORE__URL=store_url, **environ)


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    with ExitStack() as stack:
        opened = build_database(store_url)
        stack.callback(opened.close)
        yield opened
