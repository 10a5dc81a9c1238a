"""Carries out jobs: claims one at a time with a lease, renews it, and ends it exactly once.

A job that loses its worker is taken over when the lease has run out. Whoever lost the lease finds that out when it
wants to store its result, and stores nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sqlalchemy.orm import Session

from watcher.domain.errors import CancelledError, StoreError
from watcher.logs import get_logger
from watcher.platform import jobs, projecting, samplings
from watcher.platform.faults import Fault
from watcher.platform.isolation import JobFacts, WorkerCrashedError, run_isolated
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import jobs as store

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_log = get_logger(__name__)
# How often each looks for what other processes asked for or lost; nobody waits for a plot.
_IDLE_S = {jobs.SAMPLING: 1.0, jobs.PROJECTION: 5.0}
_MOST_CRASHES = 2
_STOP_S = 20.0

# Computes without touching the database; the second function stores in the transaction that ends the job.
_KINDS: dict[str, tuple[Callable[..., Any], Callable[..., str | None]]] = {
    jobs.SAMPLING: (samplings.carry_out, samplings.store_result),
    jobs.PROJECTION: (projecting.carry_out, projecting.store_result),
}


class JobWorker:
    """A thread that carries out the jobs of one kind, one at a time, until it is stopped."""

    def __init__(self, platform: Platform, kind: str) -> None:
        """Keeps the values.

        Args:
            platform: whose jobs.
            kind: one of `jobs.KINDS`.
        """
        self._platform = platform
        self._kind = kind
        self._owner = secrets.token_hex(12)
        self._stop = threading.Event()
        self._wake = platform.jobs_ready[kind]
        self._thread = threading.Thread(target=self._run, name="platform-jobs", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Takes no more jobs, and ends the one under way; does not wait."""
        self._stop.set()
        self._wake.set()

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Ends the thread; a job under way goes back to the queue."""
        self.ask_to_stop()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.run_one()
            except StoreError as error:
                _log.warning("job.store_failed", error=str(error))
                busy = False
            except Exception:  # noqa: BLE001 - the thread must outlive any one job
                _log.exception("job.worker_failed")
                busy = False
            if not busy:
                self._wake.wait(_IDLE_S[self._kind])
                self._wake.clear()

    def run_one(self) -> bool:
        """Takes and ends one job; tells whether there was one."""
        platform = self._platform
        with platform.database.read() as session:
            ready = store.has_ready(session, kind=self._kind, now_ms=self._now_ms())
        if not ready:
            return False
        with platform.database.write() as session:
            job = store.claim_job(
                session,
                kind=self._kind,
                owner=self._owner,
                now_ms=self._now_ms(),
                lease_ms=self._lease_ms,
            )
        if job is None:
            return False
        _log.info("job.started", job=job.id, kind=job.type, attempt=job.attempts)
        if job.attempts > store.MAX_ATTEMPTS:
            self._finish(job, error=f"given up after {store.MAX_ATTEMPTS} attempts")
            return True
        if job.cancel_requested:
            self._finish(job, error="cancelled")
            return True
        self._carry_out(job)
        return True

    def _carry_out(self, job: store.JobRow) -> None:
        compute, keep = _KINDS[job.type]
        heartbeat = Heartbeat(self._platform, job.id, self._owner, self._stop)

        def fail(error: str) -> None:
            self._finish(job, error=error, progress=heartbeat.progress)

        with heartbeat:
            try:
                outcome = self._compute(compute, job, heartbeat)
            except CancelledError:
                if heartbeat.is_cancelled:
                    fail("cancelled")
                elif not heartbeat.is_lost:
                    self._release(job)
                return
            except Fault as fault:
                fail(fault.text)
                return
            except (ValueError, MemoryError) as error:
                fail(str(error) or type(error).__name__)
                return
            except WorkerCrashedError as error:
                # Killed, perhaps for want of memory: that may have been the fault of others, but not again and again.
                if job.attempts < _MOST_CRASHES:
                    _log.warning("job.process_died", job=job.id, kind=job.type, error=str(error))
                    self._release(job, counted=True)
                else:
                    fail(f"{error}, {job.attempts} times: too little memory?")
                return
            except FileNotFoundError:
                fail("the uploaded embedding is missing on the server: upload it again")
                return
            except StoreError:
                self._release(job)
                raise
            except Exception as error:  # noqa: BLE001 - a bug must not make the client wait for ever
                _log.exception("job.crashed", job=job.id, kind=job.type)
                fail(f"internal error: {type(error).__name__}")
                return
        # Picks may have come to an end before as many as were wanted; there is no more to do.
        n_done, _n_wanted = heartbeat.progress
        try:
            self._finish(
                job,
                keep=lambda session: keep(session, job, outcome, now_ms=self._now_ms()),
                progress=(n_done, n_done),
            )
        except Fault as fault:
            fail(fault.text)

    def _compute(self, compute: Callable[..., Any], job: store.JobRow, heartbeat: Heartbeat) -> Any:
        facts = JobFacts(id=job.id, dataset_id=job.dataset_id, type=job.type, arguments=job.arguments)
        hooks: dict[str, Any] = {"progress": heartbeat.report, "cancelled": heartbeat.should_stop}
        if self._platform.config.isolate_jobs:
            return run_isolated(self._platform.config, compute, facts, **hooks)
        return compute(self._platform, facts, **hooks)

    def _finish(
        self,
        job: store.JobRow,
        *,
        error: str | None = None,
        keep: Callable[[Session], str | None] | None = None,
        progress: tuple[int, int] | None = None,
    ) -> None:
        with self._platform.database.write() as session:
            # The order of locks is everywhere: first the dataset, then what hangs on it.
            if dataset_store.lock_dataset(session, dataset_id=job.dataset_id) is None:
                return
            if not store.is_owner(session, job_id=job.id, owner=self._owner):
                _log.warning("job.lost", job=job.id, kind=job.type)
                return
            made = keep(session) if keep is not None else None
            store.finish_job(
                session,
                job_id=job.id,
                owner=self._owner,
                now_ms=self._now_ms(),
                error=error,
                result=None if made is None else msgspec.json.encode(made).decode(),
                progress=progress,
            )
        _log.info("job.finished", job=job.id, kind=job.type, error=error)

    def _release(self, job: store.JobRow, *, counted: bool = False) -> None:
        with self._platform.database.write() as session:
            store.release_job(
                session, job_id=job.id, owner=self._owner, now_ms=self._now_ms(), counted=counted
            )

    def _now_ms(self) -> int:
        return int(self._platform.clock.now_s() * 1000)

    @property
    def _lease_ms(self) -> int:
        return int(self._platform.config.job_lease_s * 1000)


class Heartbeat:
    """Keeps the lease of one job from a thread of its own, with the progress reported so far.

    Attributes:
        progress: how much is done, and of how much.
        is_cancelled: the user wants an end.
        is_lost: another worker has the job.
    """

    def __init__(self, platform: Platform, job_id: str, owner: str, stop: threading.Event) -> None:
        self._platform = platform
        self._job_id = job_id
        self._owner = owner
        self._stop = stop
        self._done = threading.Event()
        self.progress = (0, 0)
        self.is_cancelled = False
        self.is_lost = False
        self._thread = threading.Thread(target=self._run, name="platform-job-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join(_STOP_S)

    def report(self, n_done: int, n_total: int) -> None:
        """Notes the progress; written with the next sign of life."""
        self.progress = (n_done, n_total)

    def should_stop(self) -> bool:
        """Whether to end early: cancelled, taken over, or the server stops."""
        return self.is_cancelled or self.is_lost or self._stop.is_set()

    def _run(self) -> None:
        lease_s = self._platform.config.job_lease_s
        while not self._done.wait(min(1.0, lease_s / 4)):
            n_done, n_total = self.progress
            try:
                with self._platform.database.write() as session:
                    answer = store.renew_lease(
                        session,
                        job_id=self._job_id,
                        owner=self._owner,
                        now_ms=int(self._platform.clock.now_s() * 1000),
                        lease_ms=int(lease_s * 1000),
                        n_processed=n_done,
                        n_total=n_total,
                    )
            except StoreError as error:
                _log.warning("job.lease_not_renewed", job=self._job_id, error=str(error))
                continue
            self.is_lost = answer is None
            self.is_cancelled = bool(answer)
