"""Thousands of schedules over the real poll and job code, in simulated time: see `docs/guarantees.md`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.simulation.run import Seed, Verdict, read_seeds, run_seed
from tests.stores import empty_store

pytestmark = pytest.mark.timeout(400)

# Always the same ones, so that a change that makes one red is the cause of it.
N_SEEDS = 12
N_DEEP_SEEDS = 132
N_PAIRS = 4
N_DEEP_PAIRS = 48
N_POSTGRES = 4
_AT_ONCE = 4
_AT_ONCE_DEEP = 12


def test_seeds_that_failed_once_hold(migrated_file: Path) -> None:
    _check(read_seeds(), migrated_file)


@pytest.mark.parametrize("first", range(0, N_SEEDS, _AT_ONCE))
def test_schedule_of_faults_and_crashes_loses_and_doubles_nothing(first: int, migrated_file: Path) -> None:
    _check(map(Seed, range(first, first + _AT_ONCE)), migrated_file)


@pytest.mark.deep
@pytest.mark.parametrize("first", range(N_SEEDS, N_SEEDS + N_DEEP_SEEDS, _AT_ONCE_DEEP))
def test_more_schedules_of_faults_and_crashes_lose_and_double_nothing(
    first: int, migrated_file: Path
) -> None:
    _check(map(Seed, range(first, first + _AT_ONCE_DEEP)), migrated_file)


def test_two_daemons_of_which_leaders_freeze_and_wake_lose_and_double_nothing(migrated_file: Path) -> None:
    verdicts = _check((Seed(number, is_pair=True) for number in range(N_PAIRS)), migrated_file)
    assert sum(verdict.n_frozen_leaders for verdict in verdicts) > 0
    assert sum(verdict.n_fenced_writes for verdict in verdicts) > 0, "no old leader woke up beside a new one"


@pytest.mark.deep
@pytest.mark.parametrize("first", range(N_PAIRS, N_PAIRS + N_DEEP_PAIRS, _AT_ONCE_DEEP))
def test_more_schedules_of_two_daemons_lose_and_double_nothing(first: int, migrated_file: Path) -> None:
    _check((Seed(number, is_pair=True) for number in range(first, first + _AT_ONCE_DEEP)), migrated_file)


@pytest.mark.deep
@pytest.mark.parametrize("is_pair", [False, True], ids=["one", "pair"])
def test_schedules_over_postgres_lose_and_double_nothing(
    is_pair: bool, migrated_file: Path, migrated_url: str
) -> None:
    for number in range(N_POSTGRES):
        empty_store(migrated_url)
        verdict = run_seed(Seed(number, is_pair=is_pair), migrated_file, store_url=migrated_url)
        assert not verdict.violations, verdict.explain()


def test_seed_repeated_takes_the_same_course(migrated_file: Path) -> None:
    first, second = (run_seed(Seed(3, is_pair=True), migrated_file, shown=10**6) for _ in range(2))
    assert len(first.trace) > 100
    assert first.trace == second.trace


def _check(seeds: Iterable[Seed], migrated_file: Path) -> list[Verdict]:
    verdicts = []
    for seed in seeds:
        verdict = run_seed(seed, migrated_file)
        assert not verdict.violations, verdict.explain()
        verdicts.append(verdict)
    return verdicts
