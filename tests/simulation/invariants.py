"""What must hold at every step of a schedule, and what must be so when it is over."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, StaticPool, create_engine

from watcher.database.url import read_url
from watcher.domain.bitmask import BitMask
from watcher.domain.models import Step, WatchConfig
from watcher.domain.step_rules import UploadMode

if TYPE_CHECKING:
    from tests.simulation.remote import RemoteDataset
    from tests.simulation.world import World


class _Reader:
    """Looks into the store of a world beside its daemons, each time at what is committed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._engine = create_engine(
            read_url(world.store_url), isolation_level="AUTOCOMMIT", poolclass=StaticPool
        )
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _query(self, sql: str, *values: Any) -> list[Any]:
        if self._connection is None:
            self._connection = self._engine.connect()
        if self._engine.dialect.name != "sqlite":
            sql = sql.replace("?", "%s")
        return [tuple(row) for row in self._connection.exec_driver_sql(sql, values)]

    def _blame(self, text: str) -> None:
        self._world.violations.append(text)


class StepChecks(_Reader):
    """Looks at marks, ledger and runs behind every crash point."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._marks: dict[str, int] = {}
        self._begun: dict[int, float] = {}
        self._checked: set[int] = set()
        self._rewound: set[str] = set()

    def allow_rewind(self, watch: str) -> None:
        self._rewound.add(watch)

    def check(self, point: str) -> None:
        """Called behind the effect that the point stands for."""
        world = self._world
        world.violations += world.server.violations
        world.server.violations.clear()
        if point == "poll.created":
            for (poll_id,) in self._query("SELECT id FROM polls WHERE state = 'listing'"):
                self._begun.setdefault(poll_id, world.loop.now)
        if point.startswith(("poll.", "reconcile.")):
            self._check_marks()
        if point == "poll.mark_moved":
            self._check_nothing_passed()
        if point == "runner.claimed":
            self._check_order()

    def _check_marks(self) -> None:
        remote = {dataset.id: dataset.mark_s for dataset in self._world.server.datasets}
        told = {dataset.id: dataset.told_marks for dataset in self._world.server.datasets}
        sql = "SELECT name, dataset_id, mark_s, remote_mark_s FROM watches"
        for name, dataset_id, mark_s, remote_mark_s in self._query(sql):
            if remote_mark_s is not None and remote_mark_s not in told[dataset_id]:
                self._blame(
                    f"the mark {remote_mark_s} of {name} counts as told, but the server never heard of it"
                )
            if mark_s is None:
                continue
            if mark_s < self._marks.get(name, 0) and name not in self._rewound:
                self._blame(f"the mark of {name} went back from {self._marks[name]} to {mark_s}")
            ever = max(mark_s, self._marks.get(name, 0)) if name in self._rewound else mark_s
            if remote.get(dataset_id, 0) > ever:
                self._blame(f"the server's mark {remote[dataset_id]} of {name} is ahead of ours, {mark_s}")
            self._marks[name] = mark_s if name not in self._rewound else max(mark_s, self._marks.get(name, 0))
            if self._marks[name] == mark_s:
                self._rewound.discard(name)

    def _check_nothing_passed(self) -> None:
        """What was to be seen when the listing began is in the ledger now that the mark is behind it."""
        sql = (
            "SELECT p.id, w.id, w.name, coalesce(p.overlap_from_s, p.from_s), p.to_s FROM polls p"
            " JOIN watches w ON w.id = p.watch_id WHERE p.state = 'done' AND p.via <> 'reconcile'"
        )
        configs = {config.name: config for config in self._world.profile.configs}
        for poll_id, watch_id, name, from_s, to_s in self._query(sql):
            begun = self._begun.get(poll_id)
            if poll_id in self._checked or begun is None:
                continue
            self._checked.add(poll_id)
            known = {
                row[0] for row in self._query("SELECT file_name FROM samples WHERE watch_id = ?", watch_id)
            }
            for stored in self._world.server.datasources[configs[name].dataset].objects.values():
                version = stored.find_version(begun)
                if version is None or version is not stored.find_version(self._world.loop.now):
                    continue
                if from_s <= version.modified_s <= to_s and stored.name not in known:
                    self._blame(f"{stored.name!r} was passed by the mark {to_s} of {name}")

    def _check_order(self) -> None:
        sql = (
            "SELECT b.watch_id, count(DISTINCT b.id) FROM runs r JOIN batches b ON b.id = r.batch_id"
            # Deliveries change nothing on the server, so they may go on beside the next batch.
            " WHERE r.state = 'running' AND r.step <> 'deliver' GROUP BY b.watch_id"
        )
        for watch_id, n in self._query(sql):
            if n > 1:
                self._blame(f"runs of {n} batches of watch {watch_id} go on at once")


class Ledger(_Reader):
    """The store and the server when all is over."""

    def is_at_rest(self) -> bool:
        """Whether everything that is to be seen was listed, and everything listed came to its end."""
        polled = self._query("SELECT name, mark_s, remote_mark_s FROM watches WHERE paused_ms IS NULL")
        marks = {name: mark_s for name, mark_s, _ in polled}
        for config in self._world.profile.configs:
            paused = self._query(
                "SELECT 1 FROM watches WHERE name = ? AND paused_ms IS NOT NULL", config.name
            )
            if not paused and (marks.get(config.name) or 0) <= self._find_newest_s(config):
                return False
        return all(mark_s == remote_s for _, mark_s, remote_s in polled) and not self._query(
            "SELECT 1 FROM samples s JOIN watches w ON w.id = s.watch_id LEFT JOIN batches b ON b.id = s.batch_id"
            " WHERE w.paused_ms IS NULL AND s.state IN ('waiting', 'processing') AND coalesce(b.state, '') <> 'dead'"
            " UNION ALL SELECT 1 FROM batches b JOIN watches w ON w.id = b.watch_id"
            " WHERE w.paused_ms IS NULL AND b.state = 'open'"
            " UNION ALL SELECT 1 FROM handovers d JOIN watches w ON w.id = d.watch_id"
            " WHERE w.paused_ms IS NULL AND d.state <> 'done' LIMIT 1"
        )

    def _find_newest_s(self, config: WatchConfig) -> float:
        objects = self._world.server.datasources[config.dataset].objects.values()
        stamps = [version.modified_s for stored in objects for version in stored.versions]
        appears_s = [
            # A clock that was set back since had shown this already, and marks were taken from it.
            self._world.find_max_server_s(version.visible_at)
            for stored in objects
            for version in stored.versions
        ]
        return max([*stamps, *appears_s], default=0)

    def explain_unrest(self) -> str:
        rows = self._query(
            "SELECT r.step, r.state, r.attempt, r.error, b.key FROM runs r JOIN batches b ON b.id = r.batch_id"
            " WHERE b.state = 'open'"
        )
        waiting = self._query(
            "SELECT file_name, state, reason FROM samples WHERE state IN ('waiting', 'processing')"
        )
        polls = self._query("SELECT * FROM polls ORDER BY id DESC LIMIT 2")
        marks = self._query("SELECT name, mark_s, remote_mark_s, paused_ms FROM watches")
        return f"runs {rows}, samples {waiting}, polls {polls}, marks {marks}"

    def _iter_watches(self) -> list[tuple[WatchConfig, int, RemoteDataset]]:
        found = []
        for config in self._world.profile.configs:
            ((watch_id, dataset_id),) = self._query(
                "SELECT id, dataset_id FROM watches WHERE name = ?", config.name
            )
            found.append((config, watch_id, self._world.server.find(dataset_id)))
        return found

    def check_polls_alone(self) -> None:
        """What showed up no later than the overlap allows is known without any full comparison."""
        for config, watch_id, dataset in self._iter_watches():
            known = {
                row[0] for row in self._query("SELECT file_name FROM samples WHERE watch_id = ?", watch_id)
            }
            for stored in dataset.datasource.objects.values():
                first = stored.versions[0]
                reach_s = self._world.find_max_server_s(first.visible_at)
                horizon_s = reach_s - config.poll.hold_back_s - config.poll.overlap_s
                changed = len(stored.versions) > 1 or stored.deleted_at is not None
                if first.modified_s > horizon_s and not changed and stored.name not in known:
                    self._blame(f"{stored.name!r} was within the overlap, and no poll found it")

    def check_blame(self) -> None:
        """Nothing is set aside without a reason in the datasource, and no batch is given up for the weather."""
        for config, watch_id, dataset in self._iter_watches():
            rows = self._query("SELECT file_name, state, reason FROM samples WHERE watch_id = ?", watch_id)
            for name, state, reason in rows:
                stored = dataset.datasource.objects[name]
                if state == "quarantined" and all(version.is_sound for version in stored.versions):
                    self._blame(f"{name!r} of {config.name} is a sound picture, but quarantined: {reason}")
                if state == "gone" and stored.deleted_at is None:
                    self._blame(f"{name!r} of {config.name} was never deleted, but is gone: {reason}")
        dead = self._query("SELECT step, error FROM runs WHERE state = 'dead'")
        if dead:
            self._blame(f"runs were given up: {dead}")

    def check_end(self) -> None:
        """The reckoning."""
        for config, watch_id, dataset in self._iter_watches():
            states = dict(self._query("SELECT file_name, state FROM samples WHERE watch_id = ?", watch_id))
            for stored in dataset.datasource.objects.values():
                if stored.deleted_at is None:
                    wanted = "done" if stored.versions[-1].is_sound else "quarantined"
                    if states.get(stored.name) != wanted:
                        self._blame(f"{stored.name!r} is {states.get(stored.name)} instead of {wanted}")
                elif states.get(stored.name) not in (None, "done", "gone", "quarantined"):
                    self._blame(f"the deleted {stored.name!r} is {states[stored.name]}")
            done = sorted(name for name, state in states.items() if state == "done")
            self._check_samples(config, dataset, done)
            if Step.EMBED in config.steps:
                self._check_embeddings(dataset)
            if Step.SAMPLING in config.steps:
                self._check_picks(config, watch_id, dataset)
            ((mark_s, remote_s),) = self._query(
                "SELECT mark_s, remote_mark_s FROM watches WHERE id = ?", watch_id
            )
            if not mark_s == remote_s == dataset.mark_s:
                self._blame(f"the marks of {config.name} differ: {mark_s}, {remote_s}, {dataset.mark_s}")
        dead = self._query("SELECT step, error FROM runs WHERE state = 'dead'")
        if dead:
            self._blame(f"runs were given up: {dead}")
        left = [path.name for path in (self._world.folder / "work").iterdir()]
        if left:
            self._blame(f"temporary files are left: {left}")

    def _check_samples(self, config: WatchConfig, dataset: RemoteDataset, done: list[str]) -> None:
        present = Counter(sample.name for sample in dataset.samples)
        if any(n > 1 for n in present.values()):
            self._blame(f"doubles on the server: {present.most_common(3)}")
        if set(done) - set(present):
            self._blame(f"done, but not on the server: {sorted(set(done) - set(present))}")
        for sample in dataset.samples:
            if sample.name not in done:
                continue
            wanted = {
                UploadMode.FULL: {"full", "thumb"},
                UploadMode.THUMBNAILS: {"thumb"},
                UploadMode.METADATA: set(),
            }
            if set(sample.files) != wanted[config.upload.mode]:
                self._blame(f"{sample.name!r} has the files {sorted(sample.files)}")
            versions = dataset.datasource.objects[sample.name].versions
            if "full" in sample.files and sample.files["full"] not in [each.body for each in versions]:
                self._blame(f"the file of {sample.name!r} on the server is none that it ever was")
        names = [tag.name for tag in dataset.tags]
        if len(set(names)) < len(names):
            self._blame(f"two tags bear one name: {names}")
        if dataset.tags and len(dataset.tags[0].mask) != dataset.tags_size:
            self._blame("the initial tag does not cover the dataset")

    def _check_embeddings(self, dataset: RemoteDataset) -> None:
        if any(embedding.names is None for embedding in dataset.embeddings):
            self._blame("an embedding was promised and never sent")
        names = [embedding.name for embedding in dataset.embeddings]
        if len(set(names)) < len(names):
            self._blame(f"two embeddings bear one name: {names}")
        order = [sample.name for sample in dataset.samples]
        for embedding in dataset.embeddings:
            if embedding.names != order[: len(embedding.names or [])]:
                self._blame(f"the embedding {embedding.name} has rows in another order than the mapping")

    def _check_picks(self, config: WatchConfig, watch_id: int, dataset: RemoteDataset) -> None:
        batches = self._query(
            "SELECT id, key, sampling_tag_id FROM batches WHERE watch_id = ? ORDER BY id", watch_id
        )
        delivered: Counter[str] = Counter()
        tags = {tag.id: tag for tag in dataset.tags}
        for batch_id, key, tag_id in batches:
            picked = {
                row[0]
                for row in self._query(
                    "SELECT s.file_name FROM picks p JOIN samples s ON s.id = p.sample_id WHERE p.batch_id = ?",
                    batch_id,
                )
            }
            path = self._world.folder / "selected" / f"{key}.jsonl"
            if (tag_id is not None) != path.exists():
                self._blame(
                    f"{key} has the tag {tag_id}, and its manifest {'is' if path.exists() else 'is not'} there"
                )
                continue
            if tag_id is None:
                continue
            lines = [json.loads(line)["file_name"] for line in path.read_text().splitlines()]
            delivered.update(lines)
            if sorted(lines) != sorted(picked):
                self._blame(f"the manifest of {key} has {lines}, picked are {picked}")
            tag = tags[tag_id]
            before = BitMask() if tag.preselected_id is None else tags[tag.preselected_id].mask
            in_tag = {dataset.samples[position].name for position in tag.mask - before}
            if tag.name != key or in_tag != picked:
                self._blame(f"the tag {tag.name} of {key} has {in_tag}, picked are {picked}")
            if len(picked) > config.sampling.budget:
                self._blame(f"{key} has {len(picked)} picks, the budget is {config.sampling.budget}")
        twice = [name for name, n in delivered.items() if n > 1]
        if twice:
            self._blame(f"delivered twice: {twice}")
        ours = {key for _, key, tag_id in batches if tag_id is not None}
        expected = {"initial-tag", *ours} | {
            f"{key}-{end}" for _, key, _ in batches for end in ("new", "again", "candidates")
        }
        strange = [tag.name for tag in dataset.tags if tag.name not in expected]
        if strange:
            self._blame(f"tags that no batch accounts for: {strange}")

    def take_snapshot(self) -> dict[str, Any]:
        """All that listing everything again must not change."""
        tables = {
            "samples": "file_name, state, batch_id, remote_id",
            "batches": "key, state, n_samples",
            "runs": "batch_id, step, state",
            "picks": "batch_id, sample_id",
            "handovers": "batch_id, sink, state, n_picks",
        }
        found: dict[str, Any] = {
            name: sorted(map(str, self._query(f"SELECT {columns} FROM {name}")))
            for name, columns in tables.items()
        }
        for dataset in self._world.server.datasets:
            found[dataset.name] = (
                [sample.id for sample in dataset.samples],
                [(tag.id, tag.mask) for tag in dataset.tags],
                [embedding.id for embedding in dataset.embeddings],
                len(dataset.jobs),
            )
        return found
