"""Thousands of schedules over the real poll and job code, in simulated time: see `docs/guarantees.md`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.run import read_seeds, run_seed

pytestmark = pytest.mark.timeout(400)

# Always the same ones, so that a change that makes one red is the cause of it.
N_SEEDS = 48
N_DEEP_SEEDS = 96
_AT_ONCE = 8


def test_seeds_that_failed_once_hold(migrated: Path) -> None:
    _check(read_seeds(), migrated)


@pytest.mark.parametrize("first", range(0, N_SEEDS, _AT_ONCE))
def test_schedule_of_faults_and_crashes_loses_and_doubles_nothing(first: int, migrated: Path) -> None:
    _check(range(first, first + _AT_ONCE), migrated)


@pytest.mark.deep
@pytest.mark.parametrize("first", range(N_SEEDS, N_SEEDS + N_DEEP_SEEDS, _AT_ONCE))
def test_more_schedules_of_faults_and_crashes_lose_and_double_nothing(first: int, migrated: Path) -> None:
    _check(range(first, first + _AT_ONCE), migrated)


def test_seed_repeated_takes_the_same_course(migrated: Path) -> None:
    first, second = (run_seed(3, migrated, shown=10**6) for _ in range(2))
    assert len(first.trace) > 100
    assert first.trace == second.trace


def _check(seeds: range | list[int], migrated: Path) -> None:
    for seed in seeds:
        verdict = run_seed(seed, migrated)
        assert not verdict.violations, verdict.explain()
