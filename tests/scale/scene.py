"""Replicas, workers and a platform as real processes over one Postgres, and what they did to the dataset."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import requests
from sqlalchemy import func, select

from tests.acceptance.forge import Forge
from tests.scale.releases import Release
from tests.waiting import wait_for
from watcher.database.engine import Database, build_database
from watcher.lightly import datasets, datasources, samples
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceLocal
from watcher.store import tables

TOKEN = "a-token-for-the-tests-of-many-machines"
START_LIMIT_S = 60.0


class Member:
    """One process: a replica, a worker, or the platform."""

    def __init__(
        self, forge: Forge | Release, arguments: list[str], environ: dict[str, str], place: Path
    ) -> None:
        self._forge = forge
        self._arguments = arguments
        self._environ = environ
        self._place = place
        self._n_starts = 0
        self.pid: int | None = None
        self.url = ""

    @property
    def data_dir(self) -> Path:
        return Path(self._environ["WATCHER_DATA_DIR"])

    def start(self, *, until: str = "Ctrl-C") -> None:
        self.begin()
        self.wait_until_up(until=until)

    def begin(self) -> None:
        """Starts it without waiting."""
        self._n_starts += 1
        self.out = self._place.with_suffix(f".out{self._n_starts}")
        self.pid = self._forge.start(
            self._arguments, environ=self._environ, out=self.out, log=self._place.with_suffix(".log")
        )

    def wait_until_up(self, *, until: str = "Ctrl-C") -> None:
        wait_for(
            lambda: self.out.exists() and until in self.out.read_text(),
            limit_s=START_LIMIT_S,
            what=f"{self._arguments} is up",
            explain=self.read_log,
        )
        match = re.search(r"(http://\S+?)/metrics", self.out.read_text())
        self.url = match.group(1) if match else ""

    def signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._forge.wait(self.pid, limit_s=20)
            self.pid = None

    def terminate(self, *, limit_s: float = 60.0) -> int | None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGTERM)
        code = self._forge.wait(self.pid, limit_s=limit_s)
        if code is not None:
            self.pid = None
        return code

    def read_metric(self, name: str) -> float | None:
        """The sum of a metric's series; None while the process does not answer, or has none."""
        try:
            with requests.Session() as session:
                session.trust_env = False
                text = session.get(f"{self.url}/metrics", timeout=10).text
        except requests.RequestException:
            return None
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found)) if found else None

    def read_log(self) -> str:
        path = self._place.with_suffix(".log")
        return path.read_text(encoding="utf-8")[-5000:] if path.exists() else ""


class Scene:
    """One dataset of a platform in a process, and as many members as a test wants."""

    def __init__(self, root: Path, forge: Forge, store_url: str, **variables: str) -> None:
        self.root = root
        self.forge = forge
        self.store_url = store_url
        self.members: list[Member] = []
        self.folder = root / "datasource" / "cams"
        self.folder.mkdir(parents=True)
        watch = "WATCHER_WATCHES__CAMS__"
        base = {k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_"))}
        self._base = {**base, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.platform = self._add(
            "platform",
            [
                "platform",
                "--port",
                "0",
                "--data-dir",
                str(root / "platform"),
                "--datasource-root",
                str(root / "datasource"),
                "--token",
                TOKEN,
            ],
            self._base,
        )
        self.platform.start(until="datasources below")
        match = re.search(r"at (http\S+)", self.platform.out.read_text())
        assert match is not None
        self.server = match.group(1)
        self.transport = Transport(server=self.server, token=TOKEN)
        self.dataset_id = datasets.create_dataset(self.transport, request=DatasetCreateRequest(name="cams"))
        datasources.update_datasource(
            self.transport,
            dataset_id=self.dataset_id,
            datasource=DatasourceLocal(full_path="cams", purpose="INPUT_OUTPUT"),
        )
        self.environ = {
            **self._base,
            "LIGHTLY_TOKEN": TOKEN,
            "LIGHTLY_SERVER_LOCATION": self.server,
            "WATCHER_STORE__URL": store_url,
            "WATCHER_STORE__POOL_SIZE": "4",
            "WATCHER_DISPATCH": "procrastinate",
            "WATCHER_HTTP__PORT": "0",
            "WATCHER_WORKER__PORT": "0",
            "WATCHER_WORKER__SWEEP_S": "1",
            "WATCHER_LOG__FORMAT": "json",
            "WATCHER_LEADER__LEASE_S": "2",
            "WATCHER_RUNS__LEASE_S": "5",
            "WATCHER_RUNS__RETRY_BASE_S": "0.2",
            "WATCHER_RUNS__RETRY_CAP_S": "2",
            "WATCHER_DRAIN_TIMEOUT_S": "10",
            f"{watch}DATASET": "cams",
            f"{watch}STEPS": "upload",
            f"{watch}SCHEDULE__INTERVAL_S": "0.5",
            f"{watch}SCHEDULE__JITTER_S": "0",
            f"{watch}POLL__HOLD_BACK_S": "0",
            f"{watch}BATCH__MIN_SAMPLES": "1",
            f"{watch}BATCH__MAX_WAIT_S": "0",
            f"{watch}BATCH__SHARD_SAMPLES": "20",
            f"{watch}UPLOAD__MODE": "metadata",
            f"{watch}UPLOAD__WORKERS": "2",
            **variables,
        }

    def _add(
        self, name: str, arguments: list[str], environ: dict[str, str], release: Release | None = None
    ) -> Member:
        member = Member(release or self.forge, arguments, environ, self.root / name)
        self.members.append(member)
        return member

    def add_replica(self, *, release: Release | None = None, **variables: str) -> Member:
        """A replica of this code, or of another release."""
        return self._add_with_folder("replica", ["run"], variables, release)

    def add_worker(self, *options: str, release: Release | None = None, **variables: str) -> Member:
        """A worker of this code, or of another release."""
        return self._add_with_folder("worker", ["worker", *options], variables, release)

    def _add_with_folder(
        self, kind: str, arguments: list[str], variables: dict[str, str], release: Release | None
    ) -> Member:
        name = f"{kind}{len(self.members)}"
        data_dir = self.root / f"{name}-data"
        environ = {**self.environ, "WATCHER_DATA_DIR": str(data_dir), **variables}
        return self._add(name, arguments, environ, release)

    def put_pictures(self, n: int, *, start: int = 0) -> None:
        """As many names for one small picture, a second apart."""
        from PIL import Image

        first = self.root / "picture.jpg"
        if not first.exists():
            Image.new("RGB", (24, 16), (200, 80, 10)).save(first, "JPEG")
        for number in range(start, start + n):
            (self.folder / f"{number:06d}.jpg").write_bytes(first.read_bytes())

    def open_store(self) -> Database:
        return build_database(self.store_url)

    def count_states(self) -> Counter[str]:
        database = self.open_store()
        try:
            with database.read() as session:
                rows = session.execute(
                    select(tables.samples.c.state, func.count()).group_by(tables.samples.c.state)
                )
                return Counter({row[0]: row[1] for row in rows})
        finally:
            database.close()

    def wait_until_done(
        self,
        n: int,
        *,
        limit_s: float,
        meanwhile: Callable[[], None] | None = None,
        every_s: float = 0.2,
    ) -> None:
        def all_done() -> bool:
            if meanwhile is not None:
                meanwhile()
            try:
                return self.count_states() == {"done": n}
            except Exception:  # noqa: BLE001 - Postgres may be on its way back
                return False

        wait_for(
            all_done, limit_s=limit_s, what=f"{n} samples are done", explain=self.explain, every_s=every_s
        )

    def check_exactly_once(self, n: int) -> None:
        """Every name once in the ledger and once in the dataset, and every batch's tags made once."""
        names = [
            sample.file_name for sample in samples.fetch_samples(self.transport, dataset_id=self.dataset_id)
        ]
        assert len(names) == len(set(names)) == n
        assert self.count_states() == {"done": n}
        database = self.open_store()
        try:
            with database.read() as session:
                states = session.execute(
                    select(tables.runs.c.state, func.count()).group_by(tables.runs.c.state)
                ).all()
                assert [state for state, _ in states] == ["done"]
        finally:
            database.close()

    def find_leader(self, replicas: list[Member]) -> Member | None:
        leaders = [
            member for member in replicas if member.pid is not None and member.read_metric("watcher_leader")
        ]
        return leaders[0] if len(leaders) == 1 else None

    def explain(self) -> str:
        try:
            states = str(self.count_states())
        except Exception as error:  # noqa: BLE001 - told in its place
            states = str(error)
        return states + "".join(f"\n--- {m._place.name}\n{m.read_log()[-1500:]}" for m in self.members)

    def close(self) -> None:
        for member in self.members:
            if member.pid is not None:
                os.kill(member.pid, signal.SIGCONT)
            member.kill()
