"""Takes hints from the queue and lets the runner claim: the asynchronous side of Procrastinate in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from watcher.database.engine import Database
from watcher.dispatch.queue import TASK, RunQueue, build_connection_options
from watcher.domain.clock import Clock
from watcher.domain.errors import StoreError
from watcher.domain.models import Step
from watcher.logs import get_logger

_log = get_logger("worker")

_LOOK_S = 0.25
_RETRY_S = 2.0
_HEARTBEAT_S = 5.0


class QueueWorker:
    """Works until it is told to stop; a lost database is waited for."""

    def __init__(
        self,
        database: Database,
        queue: RunQueue,
        *,
        take: Callable[[int, Step], None],
        steps: Collection[Step],
        concurrency: int,
        find_problem: Callable[[], str | None],
        sweep_every_s: float,
        stalled_after_s: float,
        stop: threading.Event,
        beat: Callable[[], None],
        clock: Clock,
    ) -> None:
        """Keeps its parts.

        Args:
            database: the store.
            queue: for the sweeps.
            take: claims and runs one run; given the id a hint names, and its step.
            steps: whose hints are taken.
            concurrency: runs at once, each in a thread.
            find_problem: tells why no hint may be taken at present.
            sweep_every_s: how often lost hints and stalled tasks are looked for.
            stalled_after_s: a worker without a sign of life for so long is dead.
            stop: no more hints are taken; `run` returns when those in work have ended.
            beat: called now and then.
            clock: for the waits.
        """
        self._database = database
        self._queue = queue
        self._take = take
        self._steps = tuple(steps)
        self._concurrency = concurrency
        self._find_problem = find_problem
        self._sweep_every_s = sweep_every_s
        self._stalled_after_s = stalled_after_s
        self._stop = stop
        self._beat = beat
        self._clock = clock

    def run(self) -> None:
        """Works; returns after `stop` was set and the runs in work have ended."""
        while not self._stop.is_set():
            self._beat()
            if self._find_problem() is not None:
                self._clock.wait_s(self._stop, _LOOK_S)
                continue
            try:
                asyncio.run(self._serve())
            except Exception as error:  # noqa: BLE001 - a worker that died would be missed only much later
                _log.warning("queue.lost", error=str(error), kind=type(error).__name__)
                self._clock.wait_s(self._stop, _RETRY_S)

    async def _serve(self) -> None:
        import procrastinate  # noqa: PLC0415 - only with the extra

        app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                kwargs=build_connection_options(self._database), min_size=1, max_size=4, timeout=10
            )
        )

        @app.task(name=TASK, pass_context=True)
        def take(context: Any, run_id: int) -> None:
            try:
                self._take(run_id, Step(context.job.queue))
            except StoreError as error:  # the run comes back with its lease, the hint with the next sweep
                _log.warning("run.not_taken", run=run_id, error=str(error))

        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(self._concurrency + 2, thread_name_prefix="run")
        )
        async with app.open_async():
            work = asyncio.create_task(
                app.run_worker_async(
                    queues=[step.value for step in self._steps],
                    concurrency=self._concurrency,
                    name=self._database.name,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=1.0,
                    update_heartbeat_interval=_HEARTBEAT_S,
                    stalled_worker_timeout=self._stalled_after_s,
                    delete_jobs="always",
                )
            )
            sweeps = asyncio.create_task(self._sweep(app))
            try:
                while not work.done() and not self._stop.is_set() and self._find_problem() is None:
                    self._beat()
                    await asyncio.wait({work}, timeout=_LOOK_S)
                work.cancel()
                while not work.done():  # it takes no more, and waits for what is in work
                    self._beat()
                    await asyncio.wait({work}, timeout=_LOOK_S)
            finally:
                sweeps.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sweeps
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _sweep(self, app: Any) -> None:
        """Any worker mends the queue, so that work goes on while nobody leads."""
        while True:
            await asyncio.sleep(self._sweep_every_s)
            try:
                for job in await app.job_manager.get_stalled_jobs(
                    seconds_since_heartbeat=self._stalled_after_s
                ):
                    _log.info("hint.rescued", job=job.id)
                    await app.job_manager.retry_job(job)
                await asyncio.to_thread(self._queue.sweep)
            except Exception as error:  # noqa: BLE001 - tried again in a moment
                _log.warning("queue.not_swept", error=str(error), kind=type(error).__name__)
