"""Claims a run, calls its step, records the outcome, and makes the next run: each in one transaction.

This is the one place where a batch moves on. Steps return outcomes as values; exceptions are sorted here by class:
errors that a retry cannot help end the run as `dead`, others are retried with a capped, jittered backoff, and what
nobody foresaw is retried a few times and logged as a bug.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from watcher.domain.backoff import Backoff
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import (
    ApiException,
    ProtocolError,
    WatcherError,
)
from watcher.domain.models import BatchState, Run, RunState, Step, WatchConfig
from watcher.domain.pipeline import Discard, Done, Outcome, Snooze, compute_next_step
from watcher.domain.tracing import compute_trace_id
from watcher.embedders.base import TokenEmbedder
from watcher.jobs.attempts import make_attempt, record_failure
from watcher.jobs.context import JobParts, RunContext
from watcher.jobs.lease import Lease
from watcher.logs import describe_error, get_logger
from watcher.store import batches, claims, runs, samples, watches
from watcher.store.cutting import cut_batches
from watcher.store.stepping import end_shard, start_step

_log = get_logger("runner")

_MOST_ATTEMPTS_AT_A_BUG = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """How runs are leased and retried.

    Attributes:
        lease_s: how long a claim lasts without a heartbeat.
        time_limit_s: longest attempt.
    """

    lease_s: float = 60.0
    time_limit_s: float = 21_600.0
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=2.0, cap_s=900.0, max_attempts=100))


class Runner:
    """Runs one run at a time in the calling thread; safe for several threads at once."""

    def __init__(
        self,
        parts: JobParts,
        *,
        owner: str,
        rules: RunRules,
        stop: threading.Event,
        find_refused: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        """Keeps its parts; `find_refused` names watches of which no run may be taken at present."""
        self._parts = parts
        self._find_refused = find_refused
        self._owner = owner
        self._rules = rules
        self._stop = stop
        self._most_running = {
            name: config.batch.max_running
            for name, config in parts.configs.items()
            if config.batch.max_running is not None
        }

    def replace_secrets(self, configs: Iterable[WatchConfig]) -> None:
        """Takes the secrets of these watches from the next call of an embedder on."""
        for config in configs:
            embedder = self._parts.embedders.get(config.name)
            if isinstance(embedder, TokenEmbedder):
                embedder.replace_token(config.embed.token)
            if config.name in self._parts.configs:
                self._parts.configs[config.name] = config

    def run_next(self, *, beat: Callable[[], None], steps: Collection[Step] | None = None) -> bool:
        """Claims and runs one run.

        Args:
            beat: called whenever the attempt moves.
            steps: only runs of these; None for all.

        Returns:
            False if no run was ready.

        Raises:
            StoreUnavailableError: the store failed; a claimed run is taken up again when its lease ran out.
        """
        claimed_s = self._parts.clock.monotonic_s()
        now_ms = self._now_ms()
        with self._parts.database.read() as session:
            if not claims.has_claimable(session, now_ms=now_ms):
                return False
        with self._parts.database.write() as session:
            run = claims.claim_run(
                session,
                owner=self._owner,
                now_ms=now_ms,
                lease_ms=int(self._rules.lease_s * 1000),
                watch_names=self._parts.configs.keys() - set(self._find_refused()),
                steps=steps,
                most_running=self._most_running,
            )
        if run is None:
            return False
        crash_point("runner.claimed")
        with Lease(
            what=f"run-{run.id}",
            clock=self._parts.clock,
            lease_s=self._rules.lease_s,
            time_limit_s=self._rules.time_limit_s,
            extend=lambda until_ms: self._extend_lease(run, until_ms),
            stop=self._stop,
            claimed_s=claimed_s,
        ) as lease:
            self._attempt(run, lease, beat)
        return True

    def _attempt(self, run: Run, lease: Lease, beat: Callable[[], None]) -> None:
        clock = self._parts.clock
        begun_s = clock.monotonic_s()
        context = self._build_context(run, lease, beat)
        log = _log.bind(
            watch=context.watch.name,
            batch=context.batch.key,
            step=run.step.value,
            shard=run.shard,
            attempt=run.attempt,
        )
        trace_id = compute_trace_id(context.watch, context.batch)
        names = {"watch": context.watch.name, "batch": context.batch.key}

        def work() -> Outcome:
            with self._parts.tracing.run(
                trace_id=trace_id, step=run.step.value, facts={**names, "attempt": run.attempt}
            ) as tracer:
                from watcher.jobs import steps  # noqa: PLC0415 - twenty megabytes that an idle process does without

                return (steps.SHARDS if run.shard else steps.STEPS)[run.step](context.traced_by(tracer))

        outcome = make_attempt(work, on_crash=lambda error: log.error("run.crashed", exc_info=error))
        duration_s = clock.monotonic_s() - begun_s
        with self._parts.database.write() as session:
            label, held = self._record(session, context, outcome)
        crash_point("runner.recorded")
        self._trace_end(context, trace_id, names)
        self._parts.metrics.observe_run(
            watch=context.watch.name, step=run.step, outcome=label, duration_s=duration_s, trace_id=trace_id
        )
        facts: dict[str, object] = {
            "outcome": label,
            "duration_s": round(duration_s, 3),
            "trace_id": trace_id,
        }
        if not held:
            facts["lease"] = "lost"
        if isinstance(outcome, Done):
            facts |= outcome.result
        elif isinstance(outcome, Discard):
            facts["reason"] = outcome.reason
        elif isinstance(outcome, Exception):
            facts |= describe_error(outcome)
            self._parts.on_failure()
        (log.info if label in {"done", "snoozed", "discarded", "interrupted"} else log.warning)(
            "run.ended", **facts
        )

    def _trace_end(self, context: RunContext, trace_id: str, names: Mapping[str, str]) -> None:
        """Sends the root span of the batch if this attempt ended it."""
        if not self._parts.tracing.is_on:
            return
        with self._parts.database.read() as session:
            batch = batches.load_batch(session, batch_id=context.batch.id)
        if batch.finished_ms is not None:
            self._parts.tracing.end_batch(
                trace_id=trace_id,
                created_ms=batch.created_ms,
                finished_ms=batch.finished_ms,
                facts={**names, "state": batch.state.value, "n_samples": batch.n_samples},
            )

    def _build_context(self, run: Run, lease: Lease, beat: Callable[[], None]) -> RunContext:
        with self._parts.database.read() as session:
            batch = batches.load_batch(session, batch_id=run.batch_id)
            watch = watches.load_watch_by_id(session, watch_id=run.watch_id)
        return RunContext(
            parts=self._parts,
            config=self._parts.configs[watch.name],
            watch=watch,
            batch=batch,
            run=run,
            stop=lease.lost,
            deadline_s=lease.deadline_s,
            is_lost=lease.has_run_out,
            beat=beat,
        )

    def _record(
        self, session: Session, context: RunContext, outcome: Outcome | Exception
    ) -> tuple[str, bool]:
        """Writes what became of the attempt; returns the outcome's label and whether the run was still ours."""
        run, now_ms = context.run, self._now_ms()
        if isinstance(outcome, Done):
            held = self._end(session, run, now_ms, result=outcome.result)
            if held:
                self._advance(session, context, now_ms)
            return "done", held
        if isinstance(outcome, Discard):
            held = self._end(session, run, now_ms, error=outcome.reason)
            if held:
                self._finish_batch(session, context, BatchState.DONE, now_ms)
            return "discarded", held

        def finish(session: Session, now_ms: int) -> None:
            self._finish_batch(session, context, BatchState.DEAD, now_ms)

        row = _HeldRun(run, self._owner, finish)
        if isinstance(outcome, Snooze):
            wait_ms = int(outcome.seconds * 1000)
            return "snoozed", row.postpone(
                session, available_ms=now_ms + wait_ms, error=None, count_attempt=False
            )
        place = (
            f" (shard {run.shard}, samples {run.first_sample_id} to {run.last_sample_id})"
            if run.shard
            else ""
        )
        backoff = self._rules.backoff
        failure = record_failure(
            session,
            row,
            outcome,
            now_ms=now_ms,
            jitter=self._parts.rng.random(),
            is_final=is_final(outcome, attempt=run.attempt, backoff=backoff),
            backoff=backoff,
            place=place,
        )
        return failure.label, failure.held

    def _end(
        self,
        session: Session,
        run: Run,
        now_ms: int,
        *,
        result: dict[str, object] | None = None,
        error: str | None = None,
    ) -> bool:
        return runs.end_run(
            session,
            run_id=run.id,
            owner=self._owner,
            state=RunState.DONE,
            now_ms=now_ms,
            result=result or {},
            error=error,
        )

    def _advance(self, session: Session, context: RunContext, now_ms: int) -> None:
        """Makes the next runs of the batch, or ends the batch."""
        if context.run.shard:
            end_shard(session, run=context.run, now_ms=now_ms)
            return
        finished = runs.load_finished_steps(session, batch_id=context.batch.id)
        step = compute_next_step(context.batch.steps, finished)
        if step is None:
            self._finish_batch(session, context, BatchState.DONE, now_ms)
        else:
            start_step(
                session,
                batch_id=context.batch.id,
                step=step,
                shard_samples=context.config.batch.shard_samples,
                now_ms=now_ms,
            )

    def _finish_batch(self, session: Session, context: RunContext, state: BatchState, now_ms: int) -> None:
        batches.finish_batch(session, batch_id=context.batch.id, state=state, now_ms=now_ms)
        if state is BatchState.DONE:
            samples.finish_batch_samples(session, batch_id=context.batch.id, now_ms=now_ms)
        cut_batches(session, watch_id=context.watch.id, config=context.config, now_ms=now_ms)

    def _extend_lease(self, run: Run, until_ms: int) -> bool:
        with self._parts.database.write() as session:
            held = runs.extend_lease(session, run_id=run.id, owner=self._owner, until_ms=until_ms)
        crash_point("runner.lease_extended")
        return held

    def _now_ms(self) -> int:
        return int(self._parts.clock.now_s() * 1000)


@dataclass(frozen=True, slots=True)
class _HeldRun:
    """A run as `record_failure` sees it; `finish` ends its batch with it."""

    run: Run
    owner: str
    finish: Callable[[Session, int], None] = lambda _session, _now_ms: None

    @property
    def attempt(self) -> int:
        return self.run.attempt

    def postpone(
        self, session: Session, *, available_ms: int, error: str | None, count_attempt: bool
    ) -> bool:
        return runs.postpone_run(
            session,
            run_id=self.run.id,
            owner=self.owner,
            available_ms=available_ms,
            error=error,
            count_attempt=count_attempt,
        )

    def bury(self, session: Session, *, now_ms: int, error: str) -> bool:
        held = runs.end_run(
            session,
            run_id=self.run.id,
            owner=self.owner,
            state=RunState.DEAD,
            now_ms=now_ms,
            result={},
            error=error,
        )
        if held:
            self.finish(session, now_ms)
        return held


def is_final(error: Exception, *, attempt: int, backoff: Backoff) -> bool:
    """Whether a failed attempt was the run's last.

    Refused credentials are a matter for a person and no fault of the batch, so they are retried like an outage; and
    so is an answer that does not follow the protocol, since what stands before a server that fails speaks like that.
    """
    if backoff.is_exhausted(attempt=attempt):
        return True
    if isinstance(error, ApiException) and error.status in {401, 403}:
        return False
    if isinstance(error, ProtocolError):
        return False
    if isinstance(error, WatcherError):
        return not error.retryable
    return attempt >= _MOST_ATTEMPTS_AT_A_BUG
