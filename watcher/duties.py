"""What the leader does when the scheduler says so: polls, full comparisons, housekeeping."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.orm import Session

from watcher.attach import attach_watch, find_own_output
from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import CancelledError, ConfigError, StoreError, WatcherError
from watcher.domain.models import WatchConfig
from watcher.domain.redaction import redact
from watcher.lightly.transport import Transport
from watcher.logs import describe_error, get_logger
from watcher.metrics import Metrics
from watcher.poll import Poller, PollReport
from watcher.probe import probe_if_due
from watcher.reconcile import Reconciler
from watcher.source_check import SourceChecker
from watcher.store import counts, duty_problems, duty_requests, polls, reconciles, source_checks, watches
from watcher.store.control import refuse_paused
from watcher.store.cutting import cut_batches, find_waiting, is_batch_due
from watcher.store.duty_problems import Duty
from watcher.store.reconciles import ReconcileReport
from watcher.store.source_checks import SourceCheck

_log = get_logger("daemon")

_IDLE_POLLS_KEPT_MS = 7 * 86_400 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """The duties of one term of office.

    Attributes:
        database: fenced, so that nothing is written after the term.
        server_identity: names the server in the store.
        stop: set at the end of the term.
        watching: watches over one piece of work of a kind, which calls what it is given whenever it moves.
        statement_key: gives the key that the statement of the day is signed with.
        probed: when which watch was probed, by its id; unix milliseconds.
        watch_ids: the watches that are attached to their datasets, by name.
        own_output: names that are output of ours, by watch; set when it is attached.
        under_way: which duty of which watch is done just now.
    """

    database: Database
    transport: Transport
    configs: Sequence[WatchConfig]
    clock: Clock
    metrics: Metrics
    work_dir: Path
    server_identity: str
    stop: threading.Event
    watching: Callable[[str, str], AbstractContextManager[Callable[[], None]]]
    statement_key: Callable[[], str] | None = None
    watch_ids: dict[str, int] = field(default_factory=dict)
    probed: dict[int, int] = field(default_factory=dict)
    own_output: dict[str, re.Pattern[str]] = field(default_factory=dict)
    under_way: set[tuple[str, Duty]] = field(default_factory=set)

    def poll(self, name: str) -> PollReport:
        """One cycle of one watch, attached to its dataset first if need be.

        Raises:
            WatcherError: see `Poller.run_cycle`.
        """
        config = self._find_config(name)
        outcome = "failed"
        try:
            with self._noting(name, Duty.POLL), self.watching("poll", name) as beat:
                watch_id = self._attach(config)
                beat()
                self._probe(watch_id, beat)
                report = Poller(
                    database=self.database,
                    transport=self.transport,
                    config=config,
                    watch_id=watch_id,
                    clock=self.clock,
                    metrics=self.metrics,
                    stop=self.stop,
                    beat=beat,
                    own_output=self.own_output[name],
                ).run_cycle()
            outcome = "ok"
        finally:
            self.metrics.polls.labels(watch=name, outcome=outcome).inc()
        log = _log.info if report.n_new or report.resumed else _log.debug
        log(
            "poll.ended",
            watch=name,
            listed=report.n_listed,
            new=report.n_new,
            late=report.n_late,
            batches=report.n_batches,
            mark_s=report.to_s,
            resumed=report.resumed,
            duration_s=round(report.duration_s, 3),
        )
        return report

    @contextmanager
    def _noting(self, name: str, duty: Duty) -> Iterator[None]:
        """Answers who asked for a duty, and keeps why it failed until it is done, for those who look."""
        # Who asks from here on wants one that begins later.
        with self.database.read() as session:
            asked = duty_requests.load_request(session, watch=name, duty=duty)
            known = duty_problems.load_problem(session, watch=name, duty=duty)
        number = asked.number if asked is not None and asked.is_open else 0
        self.under_way.add((name, duty))
        try:
            yield
        except CancelledError:
            raise
        except Exception as error:
            is_named = isinstance(error, WatcherError)
            problem = (
                redact(str(error)) if is_named else f"unexpected {type(error).__name__}; the log tells more"
            )
            # A store that fails too is told by the first error.
            with suppress(StoreError), self.database.write() as session:
                duty_problems.record_problem(
                    session,
                    watch=name,
                    duty=duty,
                    problem=problem,
                    is_config=isinstance(error, ConfigError),
                    now_ms=self._now_ms(),
                )
                duty_requests.answer_request(session, watch=name, duty=duty, number=number)
            crash_point("duties.problem_stored")
            raise
        finally:
            self.under_way.discard((name, duty))
        if number or (known is not None and known.problem is not None):
            with self.database.write() as session:
                duty_problems.clear_problem(session, watch=name, duty=duty)
                duty_requests.answer_request(session, watch=name, duty=duty, number=number)
            crash_point("duties.problem_cleared")

    def take_up_requests(self, *, poll: Callable[[str], object], audit: Callable[[str], object]) -> None:
        """Begins what people asked for; what is under way already is looked at again when it ended.

        Args:
            poll: brings the next poll of a watch forward.
            audit: starts the full comparison of a watch beside everything else.
        """
        with self.database.read() as session:
            wanted = duty_requests.load_open_requests(session)
            paused = {row.name for row in watches.load_watches(session) if row.paused_ms} if wanted else set()
        configured = {config.name for config in self.configs}
        for request in wanted:
            if request.watch not in configured or (request.duty is Duty.POLL and request.watch in paused):
                with self.database.write() as session:
                    duty_requests.answer_request(
                        session, watch=request.watch, duty=request.duty, number=request.number
                    )
                crash_point("duties.request_refused")
            elif (request.watch, request.duty) not in self.under_way:
                (poll if request.duty is Duty.POLL else audit)(request.watch)

    def _probe(self, watch_id: int, beat: Callable[[], None]) -> None:
        probe_if_due(
            self.database,
            self.transport,
            watch_id=watch_id,
            now_ms=self._now_ms(),
            probed=self.probed,
            beat=beat,
        )

    def open_watch(self, name: str) -> tuple[WatchConfig, int]:
        """A watch with its id in the store, attached to its dataset first if need be."""
        config = self._find_config(name)
        return config, self._attach(config)

    def _find_config(self, name: str) -> WatchConfig:
        config = next((config for config in self.configs if config.name == name), None)
        if config is None:
            known = ", ".join(config.name for config in self.configs)
            raise ConfigError(f"there is no watch {name!r}; configured are: {known}")
        return config

    def _attach(self, config: WatchConfig) -> int:
        """The id of the watch's row; the server is asked the first time."""
        if config.name not in self.watch_ids:
            watch = attach_watch(
                self.database,
                self.transport,
                config=config,
                server_identity=self.server_identity,
                now_ms=self._now_ms(),
            )
            self.own_output[config.name] = find_own_output(
                self.transport, dataset_id=watch.dataset_id, configs=self.configs
            )
            self.watch_ids[config.name] = watch.id
        return self.watch_ids[config.name]

    def poll_by_hand(self, name: str) -> PollReport:
        """A cycle that a person asked for.

        Raises:
            RefusedChangeError: the watch is paused.
            WatcherError: as `poll`.
        """
        with self.database.read() as session:
            watch = watches.load_watch(session, name=name)
        if watch is not None:
            refuse_paused(watch)
        return self.poll(name)

    def poll_unless_paused(self, name: str) -> None:
        """A cycle of a watch, unless a person paused it."""
        with self.database.read() as session:
            watch = watches.load_watch(session, name=name)
        if watch is None or watch.paused_ms is None:
            self.poll(name)

    def reconcile(self, name: str) -> ReconcileReport:
        """A full comparison of one watch's datasource, ledger and dataset.

        How the server lists is probed anew first: from a listing that is taken in another way than before nothing may
        be concluded.

        Raises:
            WatcherError: see `Reconciler.run` and `probe_watch`.
        """
        config = self._find_config(name)
        with self._noting(name, Duty.AUDIT), self.watching("reconcile", name) as beat:
            watch_id = self._attach(config)
            self.probed.pop(watch_id, None)
            self._probe(watch_id, beat)
            return Reconciler(
                database=self.database,
                transport=self.transport,
                config=config,
                watch_id=watch_id,
                clock=self.clock,
                metrics=self.metrics,
                work_dir=self.work_dir,
                statement_key=None if self.statement_key is None else self.statement_key(),
                stop=self.stop,
                beat=beat,
                own_output=self.own_output[name],
            ).run()

    def reconcile_due(self) -> None:
        """Reconciles the watches whose last comparison is older than their interval, one after another."""
        for config in self.configs:
            if (config.name, Duty.AUDIT) in self.under_way:
                continue  # a person asked for it
            if self._is_due(config, config.poll.reconcile_interval_s, last_ms=_load_reconciled_ms):
                try:
                    self.reconcile(config.name)
                except WatcherError as error:
                    _log.warning("reconcile.failed", watch=config.name, **describe_error(error))

    def check_sources_due(self) -> None:
        """Looks at the sources of the watches whose last look is older than their interval, one after another."""
        for config in self.configs:
            if self._is_due(config, config.poll.source_check_interval_s, last_ms=_load_checked_ms):
                try:
                    self.check_source(config.name)
                except WatcherError as error:
                    _log.warning("source.not_checked", watch=config.name, **describe_error(error))

    def _is_due(
        self, config: WatchConfig, interval_s: float, *, last_ms: Callable[[Session, int], int | None]
    ) -> bool:
        """Whether a watch that is polled, and not paused, wants something done that is done every so often."""
        with self.database.read() as session:
            watch = watches.load_watch(session, name=config.name)
            if watch is None or watch.mark_s is None or watch.paused_ms is not None or not interval_s:
                return False
            last = last_ms(session, watch.id)
        return last is None or self._now_ms() - last >= interval_s * 1000

    def check_source(self, name: str) -> SourceCheck | None:
        """Looks for objects of one watch that polls passed over.

        Raises:
            WatcherError: see `SourceChecker.run`.
        """
        config = self._find_config(name)
        with self.watching("sources", name):
            watch_id = self._attach(config)
            return SourceChecker(
                database=self.database,
                transport=self.transport,
                config=config,
                watch_id=watch_id,
                clock=self.clock,
                own_output=self.own_output[name],
            ).run()

    def cut_due(self) -> None:
        """Cuts batches whose time came between two polls: by age, by cron, or of samples that were put off."""
        now_ms = self._now_ms()
        with self.database.read() as session:
            waiting = find_waiting(session, now_ms=now_ms)
        for config in self.configs:
            watch_id = waiting.get(config.name)
            if watch_id is None:
                continue
            with self.database.read() as session:
                due = is_batch_due(session, watch_id=watch_id, config=config, now_ms=now_ms)
            if due:
                with self.database.write() as session:
                    n = cut_batches(session, watch_id=watch_id, config=config, now_ms=now_ms)
                crash_point("daemon.batches_cut")
                _log.info("batches.cut", watch=config.name, n=n)

    def forget_idle_polls(self) -> None:
        """Polls that found nothing are not kept for ever, nor are troubles of watches that are gone."""
        with self.database.write() as session:
            configured = [config.name for config in self.configs]
            duty_problems.forget_others(session, but_watches=configured)
            duty_requests.forget_others(session, but_watches=configured)
            polls.delete_idle_polls(session, before_ms=self._now_ms() - _IDLE_POLLS_KEPT_MS)

    def fold_counts(self) -> None:
        """Keeps the counts of samples small."""
        with self.database.write() as session:
            counts.fold_counts(session)

    def _now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)


def _load_reconciled_ms(session: Session, watch_id: int) -> int | None:
    last = reconciles.load_last_report(session, watch_id=watch_id)
    return None if last is None else last[1].finished_ms


def _load_checked_ms(session: Session, watch_id: int) -> int | None:
    last = source_checks.load_check(session, watch_id=watch_id)
    return None if last is None else last.checked_ms
