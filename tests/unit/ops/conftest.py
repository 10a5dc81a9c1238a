from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.builders import NOW_S, ManualClock, build_config
from tests.leaks import OUTPUTS
from tests.stores import migrated_file, migrated_url, store_url
from tests.unit.lightly.servers import Reply, Seen, Server, serve
from watcher.database.engine import Database, build_database
from watcher.domain.backoff import Backoff
from watcher.domain.models import Step
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.ops.app import StoreLimits, build_app
from watcher.ops.collector import StoreCollector
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.parts import OpsParts
from watcher.ops.tokens import ControlTokens
from watcher.serving import ThreadedServer
from watcher.store.duty_requests import load_open_requests

__all__ = ["migrated_file", "migrated_url", "store_url"]

CONTROL_TOKEN = "c0ntrol-t0ken"
CONFIGURED_TOKEN = "c0nfigured-t0ken"
API_TOKEN = "4pi-t0ken"
OUTPUTS.know(CONTROL_TOKEN, CONFIGURED_TOKEN, API_TOKEN)
SIGNED_PATH = "/objects/read/thumb.webp?expires=1&signature=s1gned"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L" + b"\x00" * 14


@dataclass
class Lightly:
    """A server of the API that knows read URLs of thumbnails and nothing else."""

    url: str = ""
    status: int = 200
    body: bytes = WEBP
    seen: list[Seen] = field(default_factory=list)

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if seen.path.endswith("/readurl"):
            return Reply(status=self.status, body=f"{self.url}{SIGNED_PATH}")
        return Reply(body=self.body, content_type="image/webp")


class Pages:
    """One server for all tests; what it serves changes with each."""

    def __init__(self) -> None:
        self.app: Any = None
        self._server = ThreadedServer(self, host="127.0.0.1", port=0, name="pages", setting="X")
        self._server.start()
        self.url = self._server.url

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def close(self) -> None:
        self._server.stop()


class Ops:
    """The daemon's pages, served, with all that they are made of in the test's hand."""

    def __init__(
        self,
        database: Database,
        lightly: Lightly,
        pages: Pages,
        stack: ExitStack,
        *,
        read_needs_token: bool = False,
        store_limit_s: float = 20.0,
        local_token: str = CONTROL_TOKEN,
    ) -> None:
        self.database = database
        self.lightly = lightly
        self.clock = ManualClock()
        self.heartbeats = Heartbeats(self.clock)
        self.access = AccessWatch(self.clock)
        self.metrics = Metrics()
        self.next_polls: Mapping[str, datetime] = {}
        self.asked: list[str] = []
        self.role = "leader"
        self.local_token = local_token
        self.configured_token: str | None = CONFIGURED_TOKEN
        for name in ("gate", "roof"):
            self.metrics.init_watch(name, steps=(Step.UPLOAD, Step.EMBED))
        self.metrics.registry.register(
            StoreCollector(
                database,
                configured=frozenset({"gate", "roof"}),
                clock=self.clock,
                disks={"data": Path(__file__).parent},
                limit_s=10.0,
            )
        )
        transport = Transport(
            server=lightly.url,
            token=API_TOKEN,
            retry=Backoff(base_s=0.01, cap_s=0.02, max_attempts=2),
            rng=random.Random(1),
        )
        stack.callback(transport.close)
        parts = OpsParts(
            database=database,
            transport=transport,
            registry=self.metrics.registry,
            heartbeats=self.heartbeats,
            access=self.access,
            clock=self.clock,
            tokens=ControlTokens(
                local=local_token, configured=lambda: self.configured_token, name="ops-team"
            ),
            read_needs_token=read_needs_token,
            look_for_requests=self._look_for_requests,
            next_polls=lambda: self.next_polls,
            role=lambda: self.role,
            configs={name: build_config(name) for name in ("gate", "roof")},
        )
        pages.app = build_app(
            parts, limits=StoreLimits(read_s=store_limit_s, change_s=store_limit_s, health_s=store_limit_s)
        )
        self.url = pages.url
        self.session = stack.enter_context(requests.Session())
        self.session.trust_env = False

    def _look_for_requests(self) -> None:
        """Notes what a leader would find just now."""
        with self.database.read() as session:
            self.asked += [f"{one.duty} {one.watch}" for one in load_open_requests(session)]

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=20, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(f"{self.url}{path}", timeout=20, **options)

    def change(
        self, watch: str, verb: str, body: Any = None, *, token: str = CONTROL_TOKEN
    ) -> requests.Response:
        return self.post(
            f"/api/v1/watches/{watch}/{verb}", headers={"Authorization": f"Bearer {token}"}, json=body
        )

    def accept_token(self) -> None:
        """What a first good answer of the server does."""
        self.access.observe(endpoint="GET /v1/datasets", code="200")

    def expect_poll(self, watch: str, *, in_s: float) -> None:
        self.next_polls = {watch: datetime.fromtimestamp(NOW_S + in_s, UTC)}


@pytest.fixture(scope="session")
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.close()


@pytest.fixture(scope="session")
def api_server() -> Iterator[Server]:
    with serve(lambda _seen: Reply(status=500)) as server:
        yield server


@pytest.fixture
def lightly(api_server: Server) -> Lightly:
    made = Lightly(api_server.url)
    api_server.answer = made.answer
    return made


@pytest.fixture
def build_ops(lightly: Lightly, pages: Pages) -> Iterator[Callable[..., Ops]]:
    """Serves the pages over the store of that URL."""
    with ExitStack() as stack:

        def build(url: str, **options: Any) -> Ops:
            database = build_database(url)
            stack.callback(database.close)
            return Ops(database, lightly, pages, stack, **options)

        yield build


@pytest.fixture
def ops(store_url: str, build_ops: Callable[..., Ops]) -> Ops:
    """The pages over a store with its tables, once on SQLite and once on Postgres."""
    return build_ops(store_url)


@pytest.fixture
def sqlite_store_url(migrated_file: Path, tmp_path: Path) -> str:
    shutil.copyfile(migrated_file, tmp_path / "store.sqlite")
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def sqlite_ops(sqlite_store_url: str, build_ops: Callable[..., Ops]) -> Ops:
    """The same over SQLite alone, for what does not depend on the database."""
    return build_ops(sqlite_store_url)


@pytest.fixture(params=["sqlite", "postgres"])
def ops_without_store(
    request: pytest.FixtureRequest, tmp_path: Path, free_port: int, build_ops: Callable[..., Ops]
) -> Ops:
    """The pages over a store that cannot be reached: a folder that is gone, a server that does not run."""
    urls = {
        "sqlite": f"sqlite:///{tmp_path / 'gone' / 'store.sqlite'}",
        "postgres": f"postgresql://me:5ecr3t@127.0.0.1:{free_port}/watcher",
    }
    return build_ops(urls[request.param])
