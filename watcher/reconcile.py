"""A full comparison of datasource, ledger and dataset: the proof that the polls missed nothing.

Everything up to the mark is listed from the beginning. Names that are not in the ledger were missed by window and
overlap; they are counted, put into the ledger, and go their way. Memory does not grow with the number of samples:
the listed names and those of the dataset are kept in a temporary file while the ledger is read past them.

Polls and jobs go on meanwhile. So what came into the ledger after the listing began is not missed in it, and what the
dataset seemed to lack is looked for there once more.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import CancelledError, ConfigError
from watcher.domain.models import Poll, SampleState, Via, Watch, WatchConfig
from watcher.domain.names import explain_bad_name
from watcher.domain.own_output import SERVERS_OUTPUT, is_input
from watcher.domain.statements import VERSION, Statement, compute_names_digest, sign
from watcher.lateness import MOST_LOOKED_AT, learn_lateness
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.listing import iter_pages
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.store import overwrites, polls, reconciles, samples, statements, watches
from watcher.store.counts import correct_counts, load_counts
from watcher.store.reconciles import NOT_REMOTE, LedgerRow, ReconcileReport
from watcher.work_folders import open_work_folder

_log = get_logger("reconcile")

_PAGE = 2000
_MOST_NAMED = 1000
_AHEAD_S = 86_400
_TABLES = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -32000",
    *(
        f"CREATE TABLE {name} (name TEXT PRIMARY KEY, url TEXT NOT NULL) WITHOUT ROWID"
        for name in ("listed", "later", "remote")
    ),
    "CREATE TABLE ledger (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE faults (name TEXT PRIMARY KEY, fault TEXT NOT NULL) WITHOUT ROWID",
)


@dataclass(slots=True)
class _Findings:
    """What the ledger says of the names, as it was when the comparison began.

    Attributes:
        last_id: the newest row of that time.
        started_ms: that time.
    """

    last_id: int
    started_ms: int
    n_gone: int = 0
    n_no_longer_listed: int = 0
    listed: Counter[SampleState] = field(default_factory=Counter)

    def was_to_be_listed(self, row: LedgerRow) -> bool:
        """Whether the listing should have the row: it neither came nor came back since the listing began."""
        return row.id <= self.last_id and row.changed_ms <= self.started_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Reconciles one watch.

    Attributes:
        work_dir: for the temporary file, about 400 bytes a name.
        statement_key: signs the statement of the day; None: none is made.
        own_output: matches names that the daemon or the server wrote itself.
    """

    database: Database
    transport: Transport
    config: WatchConfig
    watch_id: int
    clock: Clock
    metrics: Metrics
    work_dir: Path
    statement_key: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    beat: Callable[[], None] = lambda: None
    own_output: re.Pattern[str] = SERVERS_OUTPUT

    def run(self) -> ReconcileReport:
        """Compares, repairs the ledger, and keeps the report.

        Raises:
            ConfigError: the watch was never polled.
            WatcherError: the listing, the dataset or the store failed; nothing is concluded from half a listing.
            CancelledError: `stop` was set.
        """
        started_ms = self._now_ms()
        with self.database.read() as session:
            watch = watches.load_watch_by_id(session, watch_id=self.watch_id)
        if watch.mark_s is None:
            raise ConfigError(f"the watch {watch.name!r} was never polled: there is nothing to compare yet")
        day = f"{datetime.fromtimestamp(started_ms / 1000, UTC):%Y-%m-%d}"
        with self.database.read() as session:
            found = _Findings(last_id=reconciles.load_last_id(session), started_ms=started_ms)
            due = self.statement_key is not None and not statements.has_statement(
                session, watch_id=watch.id, day=day
            )
        with (
            open_work_folder(self.work_dir, prefix="reconcile-") as folder,
            closing(sqlite3.connect(folder / "names.sqlite", isolation_level=None)) as names,
        ):
            for statement in _TABLES:
                names.execute(statement)
            n_listed = self._list(watch, names, "listed", from_s=0, to_s=watch.mark_s)
            # Known objects that were written again since the mark did not vanish.
            ahead_s = int(self.clock.now_s()) + _AHEAD_S
            self._list(watch, names, "later", from_s=watch.mark_s + 1, to_s=ahead_s)
            n_remote = 0
            for page in iter_file_names(self.transport, dataset_id=watch.dataset_id):
                self._check_stop()
                _insert(names, "remote", ((name, "") for name in page))
                n_remote += len(page)
            self._read_ledger(names, found, keep=due)
            self._look_again_for_absent(watch, names)
            n_missing, missing = self._record_missing(watch, watch.mark_s, names, found, keep=due)
            digest = (
                compute_names_digest(names.execute("SELECT name, state FROM ledger ORDER BY name"))
                if due
                else None
            )
            with self.database.write() as session:
                reconciles.replace_unexplained(
                    session,
                    watch_id=watch.id,
                    rows=names.execute("SELECT name, fault FROM faults ORDER BY name"),
                )
            crash_point("reconcile.unexplained_stored")
            (n_unexplained,) = names.execute("SELECT count(*) FROM faults").fetchone()
            unexplained = dict(
                names.execute("SELECT name, fault FROM faults ORDER BY name LIMIT ?", (_MOST_NAMED,))
            )
        with self.database.write() as session:
            off = correct_counts(session, watch_id=watch.id)
            counts = load_counts(session)
            report = ReconcileReport(
                watch=watch.name,
                started_ms=started_ms,
                finished_ms=self._now_ms(),
                to_s=watch.mark_s,
                n_listed=n_listed,
                n_missing=n_missing,
                n_gone=found.n_gone,
                n_no_longer_listed=found.n_no_longer_listed,
                samples={state.value: counts[watch.name, state] for state in SampleState},
                n_remote=n_remote,
                n_unexplained=n_unexplained,
                missing=missing,
                done_but_not_remote=[name for name, fault in unexplained.items() if fault == NOT_REMOTE],
                listed={state.value: found.listed[state] for state in SampleState},
                unexplained=unexplained,
                n_miscounted=sum(map(abs, off.values())),
            )
            reconciles.record_report(session, watch_id=watch.id, report=report)
        crash_point("reconcile.reported")
        if digest is not None:
            self._keep_statement(watch, report, day=day, digest=digest)
        (_log.info if report.is_clean else _log.warning)(
            "reconcile.ended",
            watch=watch.name,
            listed=n_listed,
            missing=n_missing,
            gone=found.n_gone,
            unexplained=report.n_unexplained,
            miscounted=report.n_miscounted,
        )
        return report

    def _list(self, watch: Watch, names: sqlite3.Connection, table: str, *, from_s: int, to_s: int) -> int:
        """Lists a window into a table; returns the number of names."""
        first, last = watch.listing.compute_range(from_s, to_s)
        is_sidecar = self.config.metadata.is_sidecar
        for page in iter_pages(
            self.transport,
            dataset_id=watch.dataset_id,
            from_s=first,
            to_s=last,
            max_pages=self.config.poll.max_pages,
        ):
            self._check_stop()
            rows = [
                (row.file_name, row.read_url)
                for row in page.rows
                if is_input(row.file_name, own_output=self.own_output, is_sidecar=is_sidecar)
            ]
            _insert(names, table, rows)
        (n_listed,) = names.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - as above
        return int(n_listed)

    def _read_ledger(self, names: sqlite3.Connection, found: _Findings, *, keep: bool) -> None:
        """Reads the ledger past the names, and takes those it knows out of `listed`; `keep` notes every state."""
        after = 0
        while True:
            self._check_stop()
            with self.database.read() as session:
                page = reconciles.load_ledger_page(
                    session, watch_id=self.watch_id, after_id=after, limit=_PAGE
                )
            if not page:
                return
            after = page[-1].id
            self._read_page(names, page, found, keep=keep)

    def _read_page(
        self, names: sqlite3.Connection, page: list[LedgerRow], found: _Findings, *, keep: bool
    ) -> None:
        listed = _find(names, "listed", [row.name for row in page])
        later = _find(names, "later", [row.name for row in page if row.name not in listed])
        vanished = [
            row
            for row in page
            if row.name not in listed and row.name not in later and found.was_to_be_listed(row)
        ]
        states = {row.name: row.state for row in page}
        returned = [row.name for row in page if row.state is SampleState.GONE and row.name in listed]
        if returned:
            with self.database.write() as session:
                overwrites.revive_returned(
                    session, watch_id=self.watch_id, rows=_load_urls(names, returned), now_ms=self._now_ms()
                )
            crash_point("reconcile.returned_recorded")
            states |= dict.fromkeys(returned, SampleState.WAITING)
        names.execute("BEGIN")
        names.executemany("DELETE FROM listed WHERE name = ?", ((name,) for name in listed))
        names.execute("COMMIT")
        waiting = [row for row in vanished if row.state is SampleState.WAITING]
        if waiting:
            with self.database.write() as session:
                found.n_gone += reconciles.record_vanished(
                    session, sample_ids=[row.id for row in waiting], now_ms=self._now_ms()
                )
            crash_point("reconcile.vanished_recorded")
            states |= {row.name: SampleState.GONE for row in waiting}
        found.n_no_longer_listed += sum(row.state is SampleState.DONE for row in vanished)
        found.listed.update(states[name] for name in listed)
        remote = _find(names, "remote", [row.name for row in page if row.state is SampleState.DONE])
        faults: list[tuple[str, str]] = []
        for row in page:
            fault = row.find_fault(is_remote=row.name in remote)
            if fault is not None:
                faults.append((row.name, fault))
        if faults:
            _insert(names, "faults", faults)
        if keep:
            _insert(names, "ledger", ((name, state.value) for name, state in states.items()))

    def _look_again_for_absent(self, watch: Watch, names: sqlite3.Connection) -> None:
        """Takes back what was said of names that came into the dataset since it was read; then it is read once more."""
        (n_absent,) = names.execute("SELECT count(*) FROM faults WHERE fault = ?", (NOT_REMOTE,)).fetchone()
        if not n_absent:
            return
        for page in iter_file_names(self.transport, dataset_id=watch.dataset_id):
            self._check_stop()
            names.execute("BEGIN")
            names.executemany(
                "DELETE FROM faults WHERE name = ? AND fault = ?", ((name, NOT_REMOTE) for name in page)
            )
            names.execute("COMMIT")

    def _record_missing(
        self, watch: Watch, to_s: int, names: sqlite3.Connection, found: _Findings, *, keep: bool
    ) -> tuple[int, list[str]]:
        """What is left in `listed` no poll ever found; it goes into the ledger now."""
        n_missing, missing, after = 0, list[str](), ""
        poll: Poll | None = None
        while True:
            self._check_stop()
            query = "SELECT name, url FROM listed WHERE name > ? ORDER BY name LIMIT ?"
            page = names.execute(query, (after, _PAGE)).fetchall()
            if not page:
                return n_missing, missing
            after = page[-1][0]
            now_ms = self._now_ms()
            with self.database.write() as session:
                # A poll may have found some since the ledger was read.
                known = samples.load_samples_named(
                    session, watch_id=watch.id, file_names=[name for name, _ in page]
                )
                states = {name: sample.state for name, sample in known.items()}
                rows = [(name, url, explain_bad_name(name)) for name, url in page if name not in known]
                poll = poll or polls.create_reconcile_poll(
                    session, watch_id=watch.id, to_s=to_s, now_ms=now_ms
                )
                n_new = samples.record_page(
                    session, watch_id=watch.id, poll_id=poll.id, via=Via.RECONCILE, rows=rows, now_ms=now_ms
                )
                polls.update_progress(
                    session, poll_id=poll.id, via=Via.RECONCILE, cursor=None, n_listed=len(rows), n_new=n_new
                )
            crash_point("reconcile.page_stored")
            states |= {
                name: SampleState.QUARANTINED if reason else SampleState.WAITING for name, _, reason in rows
            }
            found.listed.update(states.values())
            if keep:
                _insert(names, "ledger", ((name, state.value) for name, state in states.items()))
            self.metrics.samples_discovered.labels(watch=watch.name, via=Via.RECONCILE).inc(n_new)
            if rows and not n_missing:
                learn_lateness(
                    self.database,
                    self.transport,
                    watch=watch,
                    read_urls=[url for _, url, _ in rows[:MOST_LOOKED_AT]],
                    server_now_s=to_s,
                    now_ms=now_ms,
                )
            n_missing += len(rows)
            missing += [name for name, _, _ in rows][: _MOST_NAMED - len(missing)]

    def _keep_statement(self, watch: Watch, report: ReconcileReport, *, day: str, digest: str) -> None:
        assert self.statement_key is not None
        with self.database.write() as session:
            if statements.has_statement(session, watch_id=watch.id, day=day):
                return
            statement = Statement(
                version=VERSION,
                watch=watch.name,
                server=watch.server,
                dataset_id=watch.dataset_id,
                day=day,
                made_ms=report.finished_ms,
                to_s=report.to_s,
                n_listed=report.n_listed,
                listed=report.listed,
                samples=report.samples,
                n_missing=report.n_missing,
                n_unexplained=report.n_unexplained,
                n_remote=report.n_remote,
                names_sha256=digest,
                previous=statements.load_last_hash(session, watch_id=watch.id),
            )
            signed = sign(statement, key=self.statement_key)
            statements.record_statement(session, watch_id=watch.id, day=day, signed=signed)
        crash_point("reconcile.statement_kept")

    def _check_stop(self) -> None:
        self.beat()
        if self.stop.is_set():
            raise CancelledError("the reconcile was stopped; the next one starts anew")

    def _now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)


def _load_urls(names: sqlite3.Connection, wanted: Sequence[str]) -> list[tuple[str, str]]:
    query = "SELECT name, url FROM listed WHERE name = ?"
    return [names.execute(query, (name,)).fetchone() for name in wanted]


def _insert(names: sqlite3.Connection, table: str, rows: Iterable[tuple[str, str]]) -> None:
    names.execute("BEGIN")
    names.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", rows)  # noqa: S608 - a name of this module
    names.execute("COMMIT")


def _find(names: sqlite3.Connection, table: str, wanted: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(wanted), 500):
        chunk = wanted[start : start + 500]
        marks = ",".join("?" * len(chunk))
        query = f"SELECT name FROM {table} WHERE name IN ({marks})"  # noqa: S608 - a name of this module
        found.update(name for (name,) in names.execute(query, chunk))
    return found
