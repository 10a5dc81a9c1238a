"""When each watch is polled: APScheduler, one job a watch, none ever twice at once, none in another's way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from watcher.domain.cron import build_cron_trigger
from watcher.domain.errors import CancelledError, WatcherError
from watcher.domain.models import WatchConfig
from watcher.logs import describe_error, get_logger
from watcher.metrics import Metrics

_log = get_logger("scheduler")

_HEARTBEAT_S = 5.0
_MOST_POLLS_AT_ONCE = 8
_FIRINGS_LOOKED_AT = 50


def build_trigger(config: WatchConfig) -> BaseTrigger:
    """The trigger of a watch.

    Raises:
        ConfigError: the cron line cannot be read or never fires.
    """
    jitter = config.jitter_s or None
    if config.cron is None:
        return IntervalTrigger(seconds=config.interval_s, jitter=jitter, timezone=UTC)
    return build_cron_trigger(config.cron, jitter_s=jitter)


def compute_longest_interval_s(config: WatchConfig, *, now: datetime) -> float:
    """The longest time between two of the next polls of a watch by its schedule, in seconds."""
    if config.cron is None:
        return config.interval_s
    trigger = build_trigger(replace(config, jitter_s=0))
    longest_s, before = 0.0, trigger.get_next_fire_time(None, now)
    for _ in range(_FIRINGS_LOOKED_AT):
        after = None if before is None else trigger.get_next_fire_time(before, before + timedelta(seconds=1))
        if before is None or after is None:
            break
        longest_s, before = max(longest_s, (after - before).total_seconds()), after
    return longest_s


class Scheduler:
    """Runs one callable a watch on its trigger, each in a thread of a bounded pool.

    A cycle that takes longer than its interval is not started again beside itself; the tick is counted instead. A
    cycle that raises is logged, and the other watches go on.
    """

    def __init__(self, *, metrics: Metrics, beat: Callable[[], None]) -> None:
        self._metrics = metrics
        self._beat = beat
        self._running = 0
        self._stopping = False
        self._idle = threading.Condition()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            # A place of its own for the heartbeat: many long polls are no reason to be taken for dead.
            executors={
                "default": ThreadPoolExecutor(_MOST_POLLS_AT_ONCE),
                "heartbeat": ThreadPoolExecutor(1),
            },
            # Without a grace time a busy pool would drop ticks for good.
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._count_late_tick, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_job(
            self._beat,
            IntervalTrigger(seconds=_HEARTBEAT_S, timezone=UTC),
            id="heartbeat",
            executor="heartbeat",
            next_run_time=datetime.now(UTC),
        )

    def add_watch(self, config: WatchConfig, cycle: Callable[[], object]) -> None:
        """Adds a watch; its first cycle starts with the scheduler."""
        self._scheduler.add_job(
            self._run_isolated,
            build_trigger(config),
            args=(config.name, cycle),
            id=_job_id(config.name),
            next_run_time=datetime.now(UTC),
        )

    def add_maintenance(self, name: str, *, interval_s: float, task: Callable[[], object]) -> None:
        """Adds a task that is not a watch."""
        self._scheduler.add_job(
            self._run_isolated,
            IntervalTrigger(seconds=interval_s, timezone=UTC),
            args=(name, task),
            id=f"maintenance:{name}",
            next_run_time=datetime.now(UTC) + timedelta(seconds=min(interval_s, 60)),
        )

    def run_once(self, name: str, task: Callable[[], object]) -> None:
        """Runs a task now, beside everything else; one of the same name that still waits is replaced."""
        self._scheduler.add_job(
            self._run_isolated,
            args=(name, task),
            id=f"once:{name}",
            replace_existing=True,
            next_run_time=datetime.now(UTC),
        )

    def start(self) -> None:
        """Starts the clock."""
        self._scheduler.start()

    def poll_now(self, watch: str) -> bool:
        """Brings the next cycle of a watch forward; False if there is no such watch."""
        if self._scheduler.get_job(_job_id(watch)) is None:
            return False
        self._scheduler.modify_job(_job_id(watch), next_run_time=datetime.now(UTC))
        return True

    def next_polls(self) -> dict[str, datetime]:
        """When each watch is polled next."""
        return {
            job.id.removeprefix("poll:"): job.next_run_time
            for job in self._scheduler.get_jobs()
            if job.id.startswith("poll:") and job.next_run_time is not None
        }

    def stop(self, *, timeout_s: float) -> bool:
        """Starts no more cycles and waits for the running ones; False if some still run at the limit.

        Harmless if it was not started.
        """
        with self._idle:
            self._stopping = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout=timeout_s)

    def _run_isolated(self, name: str, task: Callable[[], object]) -> None:
        with self._idle:
            if self._stopping:
                return
            self._running += 1
        try:
            task()
        except CancelledError:
            _log.info("task.stopped", task=name)
        except WatcherError as error:
            _log.warning("task.failed", task=name, **describe_error(error))
        except Exception:  # noqa: BLE001 - a bug in one watch must not stop the others
            _log.exception("task.crashed", task=name)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _count_late_tick(self, event: JobSubmissionEvent) -> None:
        if event.job_id.startswith("poll:"):
            watch = event.job_id.removeprefix("poll:")
            self._metrics.polls.labels(watch=watch, outcome="skipped").inc()
            _log.info("poll.skipped", watch=watch, reason="the one before still runs")


def _job_id(watch: str) -> str:
    return f"poll:{watch}"
