"""A platform and a poller over it, in this process but over real HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.stores import migrated_file, migrated_url, store_url
from watcher.attach import attach_watch
from watcher.database.engine import Database, build_database
from watcher.domain.backoff import Backoff
from watcher.domain.clock import SystemClock
from watcher.domain.models import BatchRules, Sample, Watch, WatchConfig
from watcher.domain.poll_rules import PollRules
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.poll import Poller
from watcher.store import samples, watches

__all__ = ["migrated_file", "migrated_url", "store_url"]

TOKEN = "integration-token"
QUICK_RETRY = Backoff(base_s=0.01, cap_s=0.02, max_attempts=2)


# What differs between the two databases is in these and in the tests of the store; the rest waits for `make test-deep`.
_ON_BOTH = frozenset({"test_poll.py", "test_reconcile.py", "test_statements.py"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        is_left_out = item.path.parent == here and item.path.name not in _ON_BOTH
        if is_left_out and parameters.get("store_url") == "postgres":
            item.add_marker(pytest.mark.deep)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformServer]:
    (tmp_path / "incoming").mkdir()
    server = PlatformServer(
        PlatformConfig(
            token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path / "platform", port=0, page_size=10
        )
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    opened = build_database(store_url)
    yield opened
    opened.close()


@dataclass
class Scene:
    """A watch over a folder."""

    database: Database
    server: str
    folder: Path
    config: WatchConfig
    metrics: Metrics = field(default_factory=Metrics)
    stop: threading.Event = field(default_factory=threading.Event)

    def build_transport(self, token: str = TOKEN) -> Transport:
        return Transport(server=self.server, token=token, retry=QUICK_RETRY, read_timeout_s=5)

    def build_poller(self, **changes: object) -> Poller:
        transport = self.build_transport()
        watch = attach_watch(self.database, transport, config=self.config, server_identity="test", now_ms=0)
        parts = {
            "database": self.database,
            "transport": transport,
            "config": self.config,
            "watch_id": watch.id,
            "clock": SystemClock(),
            "metrics": self.metrics,
            "stop": self.stop,
            **changes,
        }
        return Poller(**parts)

    def put(self, name: str, body: bytes = b"x", *, modified_s: float | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        if modified_s is not None:
            os.utime(path, (modified_s, modified_s))
        return path

    def change(self, **changes: object) -> None:
        self.config = replace(self.config, **changes)

    def load_ledger(self) -> dict[str, Sample]:
        with self.database.read() as session:
            watch = self.load_watch()
            names = [
                path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()
            ]
            return samples.load_samples_named(session, watch_id=watch.id, file_names=names)

    def load_watch(self) -> Watch:
        with self.database.read() as session:
            watch = watches.load_watch(session, name=self.config.name)
        assert watch is not None
        return watch


@pytest.fixture
def scene(platform: PlatformServer, database: Database, tmp_path: Path) -> Scene:
    config = WatchConfig(
        name="cams",
        dataset="cams",
        folder="incoming",
        poll=PollRules(hold_back_s=0, overlap_s=600),
        batch=BatchRules(min_samples=10_000, max_wait_s=10_000),
    )
    return Scene(database, platform.url, tmp_path / "incoming", config)
