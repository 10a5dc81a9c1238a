from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ManualClock, add_watch, build_config
from tests.stores import migrated_file, migrated_url, store_url
from watcher.database.engine import Database, build_database
from watcher.domain.backoff import Backoff
from watcher.domain.models import Step, Watch, WatchConfig
from watcher.domain.pipeline import Done
from watcher.jobs import steps as steps_module
from watcher.jobs.context import JobParts, RunContext
from watcher.jobs.runner import Runner, RunRules
from watcher.metrics import Metrics

__all__ = ["migrated_file", "migrated_url", "store_url"]

RULES = RunRules(lease_s=60.0, time_limit_s=100.0, backoff=Backoff(base_s=2.0, cap_s=900.0, max_attempts=6))


@dataclass
class Steps:
    """Steps that do what the test says; `Done` with nothing while it says nothing."""

    acts: dict[Step, Callable[[RunContext], Any]] = field(default_factory=dict)
    calls: list[tuple[str, Step]] = field(default_factory=list)

    def call(self, step: Step, context: RunContext) -> Any:
        self.calls.append((context.batch.key, step))
        act = self.acts.get(step, lambda _context: Done({}))
        outcome = act(context)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Bench:
    """A runner over a real store, with steps, clock and rules in the test's hand."""

    def __init__(self, database: Database, folder: Path, steps: Steps) -> None:
        self.database = database
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.stop = threading.Event()
        self.steps = steps
        self.configs: dict[str, WatchConfig] = {}
        self._folder = folder

    def add_watch(self, name: str = "gate", **changes: Any) -> Watch:
        self.configs[name] = build_config(name, **changes)
        return add_watch(self.database, name)

    def build(self, *, owner: str = "me", rules: RunRules = RULES) -> Runner:
        nothing: Any = None  # the steps of these tests neither call the API nor embed
        parts = JobParts(
            database=self.database,
            transport=nothing,
            configs=self.configs,
            embedders={},
            work_dir=self._folder,
            clock=self.clock,
            metrics=self.metrics,
            rng=random.Random(1),
        )
        return Runner(parts, owner=owner, rules=rules, stop=self.stop)

    def run_next(self, **options: Any) -> bool:
        return self.build(**options).run_next(beat=lambda: None)

    def count_runs(self, step: Step, outcome: str, watch: str = "gate") -> float:
        labels = {"watch": watch, "step": step.value, "outcome": outcome}
        return self.metrics.registry.get_sample_value("watcher_runs_total", labels) or 0.0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()

    def bind(step: Step) -> Callable[[RunContext], Any]:
        return lambda context: made.call(step, context)

    monkeypatch.setattr(steps_module, "STEPS", {step: bind(step) for step in Step})
    return made


@pytest.fixture
def bench(store_url: str, tmp_path: Path, steps: Steps) -> Iterator[Bench]:
    database = build_database(store_url)
    yield Bench(database, tmp_path, steps)
    database.close()
