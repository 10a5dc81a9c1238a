"""A dataset of a shared platform, a store and a folder, over which daemons are killed at named points."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from sqlalchemy import select

from tests.acceptance.forge import Forge
from watcher.database.engine import Database, build_database
from watcher.domain.backoff import Backoff
from watcher.domain.bitmask import BitMask
from watcher.domain.crash_points import VARIABLE
from watcher.lightly import datasets, datasources, embeddings, samples, tags
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceLocal
from watcher.platform.server import PlatformServer
from watcher.store import tables
from watcher.store.checks import iter_faults

T = TypeVar("T")
NAME = "cams"
WATCH = f"WATCHER_WATCHES__{NAME.upper()}__"
OLDEST_S = 1_700_000_000
QUICK = {
    "WATCHER_HTTP__PORT": "0",
    "WATCHER_LOG__FORMAT": "json",
    "WATCHER_RUNS__WORKERS": "1",
    "WATCHER_RUNS__LEASE_S": "5",
    "WATCHER_LEADER__LEASE_S": "1",
    "WATCHER_RUNS__RETRY_BASE_S": "0.1",
    f"{WATCH}SCHEDULE__INTERVAL_S": "0.5",
    f"{WATCH}SCHEDULE__JITTER_S": "0",
    # The daily one, a minute after the start, would have its work folder just where a slow run is looked at.
    f"{WATCH}POLL__RECONCILE_INTERVAL_S": "0",
    f"{WATCH}POLL__HOLD_BACK_S": "0",
    f"{WATCH}BATCH__MIN_SAMPLES": "1",
    f"{WATCH}BATCH__MAX_SAMPLES": "3",
    # One at a time, so that the order of registration, and with it the picks, is the same in every run.
    f"{WATCH}UPLOAD__WORKERS": "1",
    f"{WATCH}UPLOAD__MODE": "full",
    f"{WATCH}SAMPLING__BUDGET": "1",
}
_START_LIMIT_S = 40.0
_END_LIMIT_S = 60.0


class CrashScene:
    """One watch. With `server` its dataset lies there; without, the daemon's platform is inside itself."""

    def __init__(self, root: Path, forge: Forge, *, store_url: str, server: PlatformServer | None) -> None:
        self.root = root
        self.forge = forge
        self.data_dir = root / "data"
        self.log_path = root / "daemon.log"
        self.store_url = store_url
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_", VARIABLE))},
            **QUICK,
            "WATCHER_DATA_DIR": str(self.data_dir),
            "WATCHER_STORE__URL": store_url,
        }
        # What else must not depend on crashes: the test's own receivers.
        self.collect_received: Callable[[], Any] = dict
        self._kept = ExitStack()
        self._server = server
        self._own_url = ""
        self._pid: int | None = None
        self._n_starts = 0
        if server is None:
            self.folder = self.data_dir / NAME
            self.folder.mkdir(parents=True)
            self.environ |= {"WATCHER_PLATFORM__PORT": "0", f"{WATCH}FOLDER": NAME}
            self.dataset = NAME
        else:
            # Datasets are told apart by the folder that pytest made for the test.
            self.dataset = f"{root.parent.name}-{root.name}".replace("_", "-")[-100:]
            self.folder = server.config.datasource_root / self.dataset
            self.folder.mkdir()
            self.environ |= {
                "LIGHTLY_TOKEN": server.config.token,
                "LIGHTLY_SERVER_LOCATION": server.url,
                f"{WATCH}DATASET": self.dataset,
            }
            self._make_dataset()

    def _make_dataset(self) -> None:
        transport = self.build_transport()
        dataset_id = datasets.create_dataset(transport, request=DatasetCreateRequest(name=self.dataset))
        datasources.update_datasource(
            transport,
            dataset_id=dataset_id,
            datasource=DatasourceLocal(full_path=self.dataset, purpose="INPUT_OUTPUT"),
        )

    def keep(self, context: AbstractContextManager[T]) -> T:
        """Enters something that is left when the scene is closed."""
        return self._kept.enter_context(context)

    def close(self) -> None:
        self._kept.close()

    def build_transport(self) -> Transport:
        retry = Backoff(base_s=0.05, cap_s=0.2, max_attempts=5)
        if self._server is not None:
            return Transport(server=self._server.url, token=self._server.config.token, retry=retry)
        token = (self.data_dir / "platform" / "token").read_text().strip()
        return Transport(server=self._own_url, token=token, retry=retry)

    def put_pictures(self, names: Sequence[str]) -> None:
        """Pictures that differ, a minute apart, so that they are listed in this order."""
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            self.put(name, buffer.getvalue(), number)

    def put(self, name: str, body: bytes, number: int) -> None:
        path = self.folder / name
        path.write_bytes(body)
        os.utime(path, (OLDEST_S + 60 * number,) * 2)

    def start(self, *, crash_at: str | None = None) -> None:
        """Starts the daemon; with a crash point it need not come up."""
        self._n_starts += 1
        out = self.root / f"out-{self._n_starts}"
        self._pid = self.forge.start(["run"], environ=self._environ(crash_at), out=out, log=self.log_path)
        if crash_at is not None:
            return
        self._wait_until(lambda: out.exists() and "Ctrl-C" in out.read_text(), limit_s=_START_LIMIT_S)
        self._own_url = out.read_text().split("platform", 1)[-1].split()[0] if self._server is None else ""

    def run_until_crash(self, point: str) -> None:
        """Starts the daemon and waits until it has killed itself at the point."""
        self.start(crash_at=point)
        self.wait_for_crash(point)

    def start_and_wait_for_event(self, event: str, *, crash_at: str) -> None:
        """Starts the daemon and waits until it has logged an event."""
        before = self.log_path.read_text().count(f'"event": "{event}"')
        self.start(crash_at=crash_at)
        self._wait_until(
            lambda: self.log_path.read_text().count(f'"event": "{event}"') > before, limit_s=_START_LIMIT_S
        )

    def wait_for_crash(self, point: str) -> None:
        """Waits until the running daemon has killed itself at the point."""
        assert self._pid is not None
        code = self.forge.wait(self._pid, limit_s=_END_LIMIT_S)
        if code is None:
            self.kill()
        assert code == -signal.SIGKILL, f"{point} was not passed ({code})\n{self.read_log()}"
        self._pid = None

    def run_command(self, *arguments: str, crash_at: str | None = None) -> tuple[int, str]:
        """Runs another command to its end; returns its exit code and what it printed."""
        self._n_starts += 1
        out = self.root / f"out-{self._n_starts}"
        pid = self.forge.start(list(arguments), environ=self._environ(crash_at), out=out, log=self.log_path)
        code = self.forge.wait(pid, limit_s=_END_LIMIT_S)
        assert code is not None, f"{arguments} does not end\n{self.read_log()}"
        return code, out.read_text()

    def _environ(self, crash_at: str | None) -> dict[str, str]:
        return self.environ if crash_at is None else {**self.environ, VARIABLE: crash_at}

    def kill(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.forge.wait(self._pid, limit_s=10)
            self._pid = None

    def read_log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")[-6000:] if self.log_path.exists() else ""

    def run_to_rest(self, *, limit_s: float = _END_LIMIT_S, n_files: int | None = None) -> dict[str, Any]:
        """Starts the daemon, waits until it knows all pictures and has nothing left to do, returns the end state."""
        self.start()
        n_files = len([*self.folder.glob("**/*.jpg")]) if n_files is None else n_files
        return self.wait_for_rest(limit_s=limit_s, n_files=n_files)

    def wait_for_rest(self, *, limit_s: float, n_files: int) -> dict[str, Any]:
        """Waits until the daemon knows that many files and has nothing left to do, kills it, returns the end state."""
        database = build_database(self.store_url)
        try:
            self._wait_until(lambda: self._is_at_rest(database, n_files), limit_s=limit_s)
            return self._collect(database)
        finally:
            database.close()
            self.kill()

    def _is_at_rest(self, database: Database, n_files: int) -> bool:
        with database.read() as session:
            states = [row.state for row in session.execute(select(tables.samples.c.state))]
            undelivered = {row.state for row in session.execute(select(tables.handovers.c.state))} - {"done"}
            open_batches = {row.state for row in session.execute(select(tables.batches.c.state))} - {"done"}
            watch = session.execute(select(tables.watches)).one_or_none()
        return (
            len(states) >= n_files
            and not {"waiting", "processing"}.intersection(states)
            and not open_batches
            and not undelivered
            and watch is not None
            and watch.remote_mark_s is not None
        )

    def _wait_until(self, condition: Callable[[], bool], *, limit_s: float) -> None:
        ends_s = time.monotonic() + limit_s
        while not condition():
            assert self._pid is not None
            code = self.forge.wait(self._pid, limit_s=0)
            assert code is None, f"the daemon ended with {code}\n{self.read_log()}"
            assert time.monotonic() < ends_s, f"not within {limit_s:g} s\n{self.read_log()}"
            time.sleep(0.03)

    def _collect(self, database: Database) -> dict[str, Any]:
        """All that must not depend on crashes, as JSON; times, ids and URLs do not belong to it."""
        return json.loads(
            json.dumps(
                {
                    **self.collect_store(database),
                    **self._collect_platform(database),
                    **self._collect_files(),
                    "received": self.collect_received(),
                }
            )
        )

    def collect_store(self, database: Database) -> dict[str, Any]:
        s, b, r = tables.samples, tables.batches, tables.runs
        with database.read() as session:
            rows = session.execute(
                select(s.c.file_name, s.c.state, s.c.reason, s.c.via, b.c.key, s.c.remote_id)
                .outerjoin(b, b.c.id == s.c.batch_id)
                .order_by(s.c.file_name)
            ).all()
            ledger = [[*row[:5], row.remote_id is not None] for row in rows]
            found = session.execute(select(b).order_by(b.c.id)).all()
            joined = (
                select(b.c.key, r.c.step, r.c.state).join(b, b.c.id == r.c.batch_id).order_by(b.c.id, r.c.id)
            )
            done = [list(row) for row in session.execute(joined)]
            picked = session.execute(
                select(b.c.key, s.c.file_name, tables.picks.c.rank)
                .join(b, b.c.id == tables.picks.c.batch_id)
                .join(s, s.c.id == tables.picks.c.sample_id)
                .order_by(tables.picks.c.batch_id, tables.picks.c.rank)
            ).all()
            delivered = session.execute(
                select(
                    tables.handovers.c.batch_id,
                    tables.handovers.c.sink,
                    tables.handovers.c.state,
                    tables.handovers.c.n_picks,
                ).order_by(tables.handovers.c.batch_id, tables.handovers.c.sink)
            ).all()
            assert list(iter_faults(session)) == []
            n_vectors = len(session.execute(select(tables.vectors.c.file_name)).all())
        return {
            "ledger": ledger,
            "batches": [
                [row.key, row.state, row.n_samples, row.sampling_tag_name, row.embedding_id is not None]
                for row in found
            ],
            "runs": done,
            "picks": [list(row) for row in picked],
            "deliveries": [list(row) for row in delivered],
            "n_vectors": n_vectors,
        }

    def _collect_platform(self, database: Database) -> dict[str, Any]:
        transport = self.build_transport()
        (dataset,) = datasets.fetch_datasets_by_name(transport, name=self.dataset, exact=True)
        rows = samples.fetch_samples(transport, dataset_id=dataset.id)
        thumbnails = 0
        for row in rows:
            for kind in ("thumbnail", "full"):
                url = samples.fetch_read_url(transport, dataset_id=dataset.id, sample_id=row.id, kind=kind)
                thumbnails += bool(transport.read_url_bytes(url, max_bytes=10**6).body)
        metadata = {}
        for row in rows:
            found = samples.fetch_sample(transport, dataset_id=dataset.id, sample_id=row.id)
            metadata[str(row.file_name)] = found.custom_meta_data
        masks = {
            tag.name: len(BitMask.from_hex(tag.bit_mask_data))
            for tag in tags.fetch_tags(transport, dataset_id=dataset.id)
        }
        vectors = {}
        for embedding in embeddings.fetch_embeddings(transport, dataset_id=dataset.id):
            url = embeddings.fetch_csv_read_url(transport, dataset_id=dataset.id, embedding_id=embedding.id)
            body = transport.read_url_bytes(url, max_bytes=10**7).body
            vectors[embedding.name] = [embedding.is_processed, body.count(b"\n") - 1]
        # The server's mark first: the daemon goes on polling, and may move both in between.
        remote_mark_s = datasources.fetch_processed_until(transport, dataset_id=dataset.id)
        with database.read() as session:
            watch = session.execute(select(tables.watches)).one()
        return {
            "dataset": sorted(str(row.file_name) for row in rows),
            "n_files_behind_them": thumbnails,
            "metadata": metadata,
            "tags": masks,
            "embeddings": vectors,
            "marks": {
                "server is not ahead": remote_mark_s <= watch.mark_s,
                "server was told": remote_mark_s > OLDEST_S,
            },
        }

    def _collect_files(self) -> dict[str, Any]:
        manifests = {
            path.name: sorted(json.loads(line)["file_name"] for line in path.read_text().splitlines())
            for path in sorted((self.data_dir / "selected").iterdir())
        }
        left = sorted(path.name for path in (self.data_dir / "work").iterdir())
        return {"manifests": manifests, "temporary files left": left}
