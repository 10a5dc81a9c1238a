"""What one seed decides: how the server is, how bad the weather, how the watch is set."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from watcher.domain.models import BatchRules, SamplingMethod, SamplingRules, Step, WatchConfig
from watcher.domain.poll_rules import PollRules
from watcher.domain.step_rules import UploadMode, UploadRules

EPOCH_S = 1_700_000_000.0


@dataclass(kw_only=True)
class Profile:
    """Drawn once from the seed.

    Attributes:
        storm_s: how long objects arrive, faults happen and processes die; then all is calm.
        fault_rate: share of the exchanges that go wrong.
        crash_rate: share of the crash points at which the process dies.
        store_fault_rate: share of the transactions that fail.
        jump_rate: share of the world's events that are a jump of a clock.
        odd_page_rate: share of the pages that are short, empty, repeated or out of order.
    """

    seed: int
    epoch_s: float = EPOCH_S
    storm_s: float
    n_objects: int
    fault_rate: float
    crash_rate: float
    store_fault_rate: float
    jump_rate: float
    odd_page_rate: float
    operator_rate: float
    server_offset_s: float
    page_size: int
    lists_a_snapshot: bool
    lists_by_time: bool
    cursor_ttl_s: float
    url_ttl_s: float
    is_old_server: bool
    ignores_filters: bool
    knows_names: bool
    reserves_names: bool
    refuses_promised_names: bool
    reconciles: bool
    n_watches: int
    n_workers: int
    interval_s: float
    configs: list[WatchConfig] = field(default_factory=list)

    def build_rng(self, purpose: str) -> random.Random:
        """A stream of its own, so that one more draw here changes nothing there."""
        return random.Random(f"{self.seed} {purpose}")

    def build_key(self, name: str, modified_s: int) -> tuple[Any, ...]:
        """Where a listing has an object."""
        return (modified_s, name) if self.lists_by_time else (name,)


def draw_profile(seed: int) -> Profile:
    """The profile of a seed."""
    rng = random.Random(f"{seed} profile")
    storm_s = rng.choice((60.0, 150.0, 300.0))
    profile = Profile(
        seed=seed,
        storm_s=storm_s,
        n_objects=rng.randrange(2, 9),
        fault_rate=rng.choice((0.0, 0.03, 0.15, 0.3)),
        crash_rate=rng.choice((0.0, 0.01, 0.04, 0.1)),
        store_fault_rate=rng.choice((0.0, 0.0, 0.02)),
        jump_rate=rng.choice((0.0, 0.0, 0.3)),
        odd_page_rate=rng.choice((0.0, 0.3, 0.7)),
        operator_rate=rng.choice((0.0, 0.0, 0.3)),
        server_offset_s=rng.choice((0.0, -3.0, 7.0, 80_000.0, -40_000.0)),
        page_size=rng.choice((1, 2, 3, 5)),
        lists_a_snapshot=rng.random() < 0.3,
        lists_by_time=rng.random() < 0.3,
        cursor_ttl_s=rng.choice((5.0, 60.0, 10_000.0)),
        url_ttl_s=rng.choice((10.0, 60.0, 10_000.0)),
        is_old_server=rng.random() < 0.2,
        ignores_filters=rng.random() < 0.2,
        knows_names=rng.random() < 0.3,
        reserves_names=rng.random() < 0.5,
        refuses_promised_names=rng.random() < 0.3,
        reconciles=rng.random() < 0.4,
        n_watches=rng.choice((1, 1, 1, 2)),
        n_workers=rng.choice((1, 1, 2)),
        interval_s=storm_s / rng.choice((4, 7, 11)),
    )
    profile.configs = [_draw_config(rng, f"cam{number}") for number in range(profile.n_watches)]
    return profile


def _draw_config(rng: random.Random, name: str) -> WatchConfig:
    steps = rng.choice(
        (
            (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER),
            (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER),
            (Step.UPLOAD, Step.EMBED),
            (Step.UPLOAD,),
        )
    )
    return WatchConfig(
        name=name,
        dataset=f"{name} data",
        folder=rng.choice((None, name)),
        steps=steps,
        poll=PollRules(hold_back_s=rng.choice((0, 2, 5)), overlap_s=rng.choice((30, 120, 600))),
        batch=BatchRules(
            min_samples=rng.choice((1, 2, 4)),
            max_samples=rng.choice((2, 4, 8)),
            max_wait_s=rng.choice((5.0, 40.0)),
            max_open=rng.choice((1, 3, 16)),
        ),
        upload=UploadRules(
            mode=rng.choice((*UploadMode,)), workers=rng.choice((1, 2, 4)), settle_s=20.0, settle_attempts=3
        ),
        sampling=SamplingRules(
            method=rng.choice((SamplingMethod.RANDOM, SamplingMethod.CORESET)), budget=rng.choice((1, 2))
        ),
    )
