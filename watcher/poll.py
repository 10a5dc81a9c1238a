"""One cycle of one watch: list what is new, write it to the ledger, move the mark.

The order is the guarantee. Every page is one transaction; the mark moves, together with the cutting of batches,
only after the last page; the server is told afterwards. A crash anywhere leaves either the old mark, and the
listing goes on at its kept cursor, or the new one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, CancelledError, ListingLoopError, WatcherError
from watcher.domain.models import Poll, PollState, Via, Watch, WatchConfig
from watcher.domain.names import can_be_stored, explain_bad_name
from watcher.domain.own_output import SERVERS_OUTPUT
from watcher.domain.poll_rules import OverwritePolicy
from watcher.domain.redaction import redact
from watcher.domain.window import check_clock, compute_window
from watcher.lateness import MOST_LOOKED_AT, build_lateness, learn_lateness
from watcher.lightly import datasources
from watcher.lightly.parallel import open_pool
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import RawSample
from watcher.lightly.workflows.listing import ListingPage, iter_pages
from watcher.logs import describe_error, get_logger
from watcher.metrics import Metrics
from watcher.overwrites import look_at_relisted
from watcher.store import overwrites, polls, samples, watches
from watcher.store.cutting import cut_batches
from watcher.store.sidecars import record_sidecars

_log = get_logger("poll")

_LONGEST_NAME_IN_LOG = 200


@dataclass(frozen=True, slots=True)
class PollReport:
    """What a cycle found.

    Attributes:
        n_listed: rows the server listed, repeats and known ones included.
        n_new: names that were not in the ledger.
        n_late: how many of them showed up in the overlap, behind the mark.
        n_batches: batches cut at the end.
        resumed: whether the cycle went on with an interrupted listing.
    """

    from_s: int
    to_s: int
    n_pages: int
    n_listed: int
    n_new: int
    n_late: int
    n_batches: int
    resumed: bool
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """Polls one watch; one thread at a time.

    Attributes:
        own_output: matches names that the daemon or the server wrote itself.
    """

    database: Database
    transport: Transport
    config: WatchConfig
    watch_id: int
    clock: Clock
    metrics: Metrics
    stop: threading.Event = field(default_factory=threading.Event)
    beat: Callable[[], None] = lambda: None
    own_output: re.Pattern[str] = SERVERS_OUTPUT

    def run_cycle(self) -> PollReport:
        """One cycle.

        Returns:
            What was found; zero new samples only if the listing was complete.

        Raises:
            WatcherError: the listing or the store failed; the mark stands where it was, and the next cycle goes on.
            CancelledError: `stop` was set; likewise.
        """
        started_s = self.clock.monotonic_s()
        try:
            poll, resumed = self._begin()
        except WatcherError as error:
            with self.database.write() as session:
                watches.record_problem(session, watch_id=self.watch_id, problem=redact(str(error)))
            crash_point("poll.problem_stored")
            raise
        before = (poll.n_pages, poll.n_listed, poll.n_new)
        n_late = 0
        try:
            if poll.via is Via.OVERLAP:
                n_late = self._list_query(poll, Via.OVERLAP)
                self._learn_lateness(poll, n_late)
                with self.database.write() as session:
                    polls.update_query(session, poll_id=poll.id, via=Via.WINDOW)
                crash_point("poll.query_turned")
                poll = self._reload(poll)
            self._list_query(poll, Via.WINDOW)
        except Exception as error:
            self._record_interruption(poll, error, resumed=resumed, pages_before=before[0])
            raise
        n_batches, mark_s = self._finish(poll)
        self._tell_remote_mark(mark_s)
        with self.database.read() as session:
            watch = self._load_watch(session)
        look_at_relisted(
            self.database,
            self.transport,
            watch=watch,
            policy=self.config.poll.overwritten,
            now_ms=self._now_ms(),
            metrics=self.metrics,
            stop=self.stop,
        )
        poll = self._reload(poll)
        report = PollReport(
            from_s=poll.from_s,
            to_s=poll.to_s,
            n_pages=poll.n_pages - before[0],
            n_listed=poll.n_listed - before[1],
            n_new=poll.n_new - before[2],
            n_late=n_late,
            n_batches=n_batches,
            resumed=resumed,
            duration_s=self.clock.monotonic_s() - started_s,
        )
        self.metrics.poll_duration_s.labels(watch=self.config.name).observe(report.duration_s)
        return report

    def _begin(self) -> tuple[Poll, bool]:
        """The interrupted poll if there is one, else a new one whose window is frozen here."""
        with self.database.read() as session:
            unfinished = polls.load_unfinished_poll(session, watch_id=self.watch_id)
            watch = self._load_watch(session)
        if unfinished is not None:
            return unfinished, True
        server = self.transport.fetch_server_time(
            datasources.MARK_ENDPOINT, path_params={"datasetId": watch.dataset_id}
        )
        self.metrics.set_clock_skew(server.skew_s)
        rules = self.config.poll
        check_clock(
            mark_s=watch.mark_s, server_now_s=server.date_s, local_now_s=self.clock.now_s(), rules=rules
        )
        overlap_s = build_lateness(watch).compute_overlap(rules, now_s=self.clock.now_s())
        window = compute_window(
            mark_s=watch.mark_s, server_now_s=server.date_s, rules=rules, overlap_s=overlap_s
        )
        with self.database.write() as session:
            poll = polls.create_poll(session, watch_id=self.watch_id, window=window, now_ms=self._now_ms())
        crash_point("poll.created")
        return poll, False

    def _learn_lateness(self, poll: Poll, n_late: int) -> None:
        if not n_late:
            return
        with self.database.read() as session:
            watch = self._load_watch(session)
            urls = polls.load_newest_urls(
                session, watch_id=self.watch_id, poll_id=poll.id, limit=min(n_late, MOST_LOOKED_AT)
            )
        learn_lateness(
            self.database,
            self.transport,
            watch=watch,
            read_urls=urls,
            server_now_s=poll.to_s + self.config.poll.hold_back_s,
            now_ms=self._now_ms(),
        )

    def _list_query(self, poll: Poll, via: Via) -> int:
        """Lists one of the two queries from the kept cursor on; returns how many names were new."""
        from_s, to_s = poll.from_s, poll.to_s
        if via is Via.OVERLAP:
            assert poll.overlap_from_s is not None
            from_s, to_s = poll.overlap_from_s, poll.from_s - 1
        if from_s > to_s:
            return 0
        with self.database.read() as session:
            watch = self._load_watch(session)
        n_new = 0
        first, last = watch.listing.compute_range(from_s, to_s)
        pages = self._iter_pages(poll, dataset_id=watch.dataset_id, from_s=first, to_s=last)
        # Closed here, whatever happens: see `lightly/parallel.py`.
        with open_pool(1, name="listing") as pool:
            for page in _fetch_ahead(pages, pool):
                if self.stop.is_set():
                    raise CancelledError("the poll was stopped; it goes on where it was at the next start")
                n_new += self._record_page(poll, via, page)
        return n_new

    def _iter_pages(self, poll: Poll, *, dataset_id: str, from_s: int, to_s: int) -> Iterator[ListingPage]:
        cursor = poll.cursor
        n_seen = 0
        try:
            for page in iter_pages(
                self.transport,
                dataset_id=dataset_id,
                from_s=from_s,
                to_s=to_s,
                cursor=cursor,
                max_pages=self.config.poll.max_pages,
            ):
                n_seen += 1
                yield page
        except ApiException as error:
            # A kept cursor may have expired: the same frozen window is listed from its start.
            if cursor is None or n_seen or error.retryable or error.status in {401, 403}:
                raise
            _log.info("listing.restarted", watch=self.config.name, reason=str(error))
            yield from iter_pages(
                self.transport,
                dataset_id=dataset_id,
                from_s=from_s,
                to_s=to_s,
                max_pages=self.config.poll.max_pages,
            )

    def _record_page(self, poll: Poll, via: Via, page: ListingPage) -> int:
        self.beat()
        is_sidecar = self.config.metadata.is_sidecar
        beside = [
            (row.file_name, row.read_url)
            for row in page.rows
            if is_sidecar(row.file_name) and can_be_stored(row.file_name)
        ]
        listed = [row for row in page.rows if not is_sidecar(row.file_name)]
        rows = [row for row in map(self._check_row, listed) if row is not None]
        with self.database.write() as session:
            record_sidecars(session, watch_id=self.watch_id, rows=beside)
            n_new = samples.record_page(
                session, watch_id=self.watch_id, poll_id=poll.id, via=via, rows=rows, now_ms=self._now_ms()
            )
            if n_new < len(rows):
                self._note_known(session, poll, via, rows)
            polls.update_progress(
                session,
                poll_id=poll.id,
                via=via,
                cursor=page.cursor_next,
                n_listed=len(page.rows),
                n_new=n_new,
            )
        crash_point("poll.page_stored")
        self.metrics.samples_discovered.labels(watch=self.config.name, via=via).inc(n_new)
        return n_new

    def _note_known(
        self, session: Session, poll: Poll, via: Via, rows: list[tuple[str, str, str | None]]
    ) -> None:
        """Known names that came back, or were perhaps written again."""
        good = [(name, url) for name, url, reason in rows if reason is None]
        if not good:
            return
        overwrites.revive_returned(session, watch_id=self.watch_id, rows=good, now_ms=self._now_ms())
        looks = self.config.poll.overwritten is not OverwritePolicy.IGNORE
        if looks and via is Via.WINDOW and poll.from_s > 0:
            overwrites.note_relisted(
                session, watch_id=self.watch_id, rows=good, from_s=poll.from_s, now_ms=self._now_ms()
            )

    def _check_row(self, row: RawSample) -> tuple[str, str, str | None] | None:
        if self.own_output.match(row.file_name):
            return None
        reason = explain_bad_name(row.file_name)
        if reason is None:
            return row.file_name, row.read_url, None
        shown = row.file_name[:_LONGEST_NAME_IN_LOG]
        _log.warning("sample.refused", watch=self.config.name, file_name=shown, reason=reason)
        if not can_be_stored(row.file_name):
            return None
        return row.file_name, row.read_url, reason

    def _finish(self, poll: Poll) -> tuple[int, int]:
        """Moves the mark and cuts batches in one transaction."""
        now_ms = self._now_ms()
        with self.database.write() as session:
            present = polls.load_poll(session, poll_id=poll.id)
            if present is None or present.state is not PollState.LISTING:
                raise CancelledError(
                    "the mark was set back while this poll ran; the next one starts from there"
                )
            watch = self._load_watch(session)
            mark_s = poll.to_s if watch.mark_s is None else max(watch.mark_s, poll.to_s)
            watches.update_mark(session, watch_id=self.watch_id, mark_s=mark_s, now_ms=now_ms)
            polls.finish_poll(session, poll_id=poll.id, state=PollState.DONE, now_ms=now_ms)
            n_batches = cut_batches(session, watch_id=self.watch_id, config=self.config, now_ms=now_ms)
        crash_point("poll.mark_moved")
        return n_batches, mark_s

    def _tell_remote_mark(self, mark_s: int) -> None:
        """Tells the server the mark; what fails is sent again by the next poll, since nothing depends on it."""
        with self.database.read() as session:
            watch = self._load_watch(session)
        if watch.remote_mark_s == mark_s:
            return
        try:
            datasources.update_processed_until(
                self.transport,
                dataset_id=watch.dataset_id,
                timestamp_s=watch.listing.compute_mark(mark_s),
            )
            crash_point("poll.remote_mark_told")
        except WatcherError as error:
            _log.warning("mark.not_told", watch=self.config.name, **describe_error(error))
            return
        with self.database.write() as session:
            watches.update_remote_mark(session, watch_id=self.watch_id, remote_mark_s=mark_s)
        crash_point("poll.remote_mark_stored")

    def _record_interruption(self, poll: Poll, error: Exception, *, resumed: bool, pages_before: int) -> None:
        """Keeps the listing for the next cycle, unless going on with it led nowhere."""
        with self.database.write() as session:
            present = polls.load_poll(session, poll_id=poll.id)
            stuck = resumed and present is not None and present.n_pages == pages_before
            if isinstance(error, ListingLoopError) or (stuck and not isinstance(error, CancelledError)):
                polls.finish_poll(
                    session,
                    poll_id=poll.id,
                    state=PollState.FAILED,
                    now_ms=self._now_ms(),
                    error=redact(str(error)),
                )
            else:
                polls.record_error(session, poll_id=poll.id, error=redact(str(error)))
        crash_point("poll.interruption_stored")

    def _reload(self, poll: Poll) -> Poll:
        with self.database.read() as session:
            present = polls.load_poll(session, poll_id=poll.id)
        assert present is not None
        return present

    def _load_watch(self, session: Session) -> Watch:
        watch = watches.load_watch(session, name=self.config.name)
        assert watch is not None
        return watch

    def _now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)


def _fetch_ahead(pages: Iterator[ListingPage], pool: Executor) -> Iterator[ListingPage]:
    """The same pages; the next one is fetched while the caller stores the present one, and never more than that."""
    coming = pool.submit(next, pages, None)
    while (page := coming.result()) is not None:
        coming = pool.submit(next, pages, None)
        yield page
