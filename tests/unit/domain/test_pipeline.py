"""The order of the steps, and when waiting samples become a batch."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.errors import ConfigError
from watcher.domain.models import BatchRules, SamplingMethod, Step
from watcher.domain.pipeline import compute_batch_size, compute_most_samples, compute_next_step, order_steps

RULES = BatchRules(min_samples=100, max_wait_s=15.0, max_samples=1000, max_open=2)
NEEDS = {
    Step.METADATA: Step.UPLOAD,
    Step.EMBED: Step.UPLOAD,
    Step.SAMPLING: Step.EMBED,
    Step.DELIVER: Step.SAMPLING,
}


def size(
    n_waiting: int,
    *,
    oldest_wait_s: float = 0.0,
    n_open: int = 0,
    rules: BatchRules = RULES,
    most_samples: int | None = None,
) -> int:
    return compute_batch_size(
        n_waiting=n_waiting,
        oldest_wait_s=oldest_wait_s,
        n_open=n_open,
        rules=rules,
        most_samples=most_samples,
    )


def test_batch_with_too_few_samples_waits():
    assert size(99, oldest_wait_s=14.9) == 0


def test_batch_with_enough_samples_is_cut_at_once():
    assert size(100) == 100


def test_batch_with_one_old_sample_is_cut():
    assert size(1, oldest_wait_s=15.0) == 1


def test_batch_of_nothing_is_never_cut_however_long_it_waited():
    assert size(0, oldest_wait_s=1e9) == 0


def test_batch_of_a_flood_is_bounded():
    assert size(10_000) == 1000


def test_batch_beside_as_many_open_ones_as_allowed_waits_however_full():
    assert size(10_000, oldest_wait_s=1e9, n_open=1) == 1000
    assert size(10_000, oldest_wait_s=1e9, n_open=2) == 0
    assert size(10_000, oldest_wait_s=1e9, n_open=3) == 0


@given(
    n_waiting=st.integers(0, 10**7),
    oldest_wait_s=st.floats(0, 1e9),
    n_open=st.integers(0, 100),
    rules=st.builds(
        BatchRules,
        min_samples=st.integers(1, 1000),
        max_wait_s=st.floats(0, 1e6),
        max_samples=st.integers(1, 10_000),
        max_open=st.integers(1, 64),
    ),
)
def test_batch_size_is_never_more_than_waits_or_may_be_at_once(n_waiting, oldest_wait_s, n_open, rules):
    n = size(n_waiting, oldest_wait_s=oldest_wait_s, n_open=n_open, rules=rules)
    assert 0 <= n <= min(n_waiting, rules.max_samples)
    if n_waiting and oldest_wait_s >= rules.max_wait_s and n_open < rules.max_open:
        assert n > 0


@pytest.mark.parametrize(
    "given_order", list(permutations([Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER]))
)
def test_steps_in_any_order_come_out_in_the_only_order(given_order):
    ordered = order_steps(given_order, method=SamplingMethod.CORESET)
    assert ordered == (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER)


def test_steps_named_twice_are_run_once():
    assert order_steps([Step.UPLOAD, Step.UPLOAD], method=SamplingMethod.RANDOM) == (Step.UPLOAD,)


def test_steps_of_every_combination_are_refused_exactly_when_a_need_is_missing():
    for n in range(1, len(Step) + 1):
        for steps in combinations(Step, n):
            missing = [need for step, need in NEEDS.items() if step in steps and need not in steps]
            if not missing:
                assert order_steps(steps, method=SamplingMethod.CORESET) == steps
                continue
            with pytest.raises(ConfigError) as caught:
                order_steps(steps, method=SamplingMethod.CORESET)
            assert any(f"add {need}" in str(caught.value) for need in missing)


def test_steps_none_at_all_are_refused_with_an_example():
    with pytest.raises(ConfigError, match="for example upload"):
        order_steps([], method=SamplingMethod.CORESET)


def test_sampling_without_embedding_is_refused_with_its_method():
    with pytest.raises(ConfigError, match=r"the step sampling \(method CORESET\) needs the step embed"):
        order_steps([Step.UPLOAD, Step.SAMPLING], method=SamplingMethod.CORESET)


def test_batch_by_cron_takes_whatever_waited_then():
    rules = BatchRules(min_samples=100, max_wait_s=1e9, max_samples=50, cron="0 6 * * *")
    assert [size(n, rules=rules) for n in (0, 1, 49, 51)] == [0, 1, 49, 50]
    assert size(9, rules=rules, n_open=rules.max_open) == 0


def test_batch_by_bytes_is_cut_as_soon_as_so_much_waits_and_holds_no_more():
    rules = BatchRules(min_samples=1000, max_wait_s=1e9, max_samples=2000, max_bytes=10_000_000)
    assert compute_most_samples(rules, mean_bytes=500_000.0) == 20
    assert [size(n, rules=rules, most_samples=20) for n in (19, 20, 500)] == [0, 20, 20]
    assert compute_most_samples(rules, mean_bytes=0.0) == 2000
    assert compute_most_samples(rules, mean_bytes=1e12) == 1
    assert compute_most_samples(BatchRules(max_samples=7), mean_bytes=1e12) == 7


def test_next_step_is_the_first_unfinished_one_and_none_at_the_end():
    steps = (Step.UPLOAD, Step.EMBED, Step.SAMPLING)
    assert compute_next_step(steps, set()) is Step.UPLOAD
    assert compute_next_step(steps, {Step.UPLOAD}) is Step.EMBED
    assert compute_next_step(steps, {Step.UPLOAD, Step.EMBED}) is Step.SAMPLING
    assert compute_next_step(steps, set(steps)) is None
