from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders import add_watch
from tests.stores import migrated_file, migrated_url, store_url
from watcher.database.engine import Database, build_database
from watcher.domain.models import Watch

__all__ = ["migrated_file", "migrated_url", "store_url"]


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    opened = build_database(store_url)
    yield opened
    opened.close()


@pytest.fixture
def watch(database: Database) -> Watch:
    return add_watch(database)
