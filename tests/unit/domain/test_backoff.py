"""How long a failed attempt waits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.backoff import Backoff

BACKOFF = Backoff(base_s=2.0, cap_s=900.0, max_attempts=5)

jitters = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 2.0), (2, 4.0), (3, 8.0), (9, 512.0), (10, 900.0), (5000, 900.0)]
)
def test_backoff_doubles_from_the_base_to_the_cap(attempt, longest):
    assert BACKOFF.compute_delay_s(attempt=attempt, jitter=1.0) == longest
    assert BACKOFF.compute_delay_s(attempt=attempt, jitter=0.0) == longest / 2


@given(attempt=attempts, jitter=jitters)
def test_backoff_with_any_jitter_lies_between_half_the_wait_and_the_cap(attempt, jitter):
    delay = BACKOFF.compute_delay_s(attempt=attempt, jitter=jitter)
    assert 1.0 <= delay <= 900.0
    assert delay >= BACKOFF.compute_delay_s(attempt=attempt, jitter=0.0)


@given(attempt=attempts, jitter=jitters, floor_s=st.floats(0, 1e6))
def test_backoff_never_undercuts_what_the_server_asked_for_even_beyond_the_cap(attempt, jitter, floor_s):
    asked = BACKOFF.compute_delay_s(attempt=attempt, jitter=jitter, floor_s=floor_s)
    own = BACKOFF.compute_delay_s(attempt=attempt, jitter=jitter)
    assert asked == max(own, floor_s)


def test_backoff_of_many_waiters_spreads_them():
    rng = random.Random(1)
    delays = [BACKOFF.compute_delay_s(attempt=6, jitter=rng.random()) for _ in range(1000)]
    assert max(delays) - min(delays) > 25
    assert min(delays) >= 32


def test_backoff_is_exhausted_at_its_last_attempt_and_not_before():
    assert [BACKOFF.is_exhausted(attempt=n) for n in range(1, 8)] == [False] * 4 + [True] * 3
