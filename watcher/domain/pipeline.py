"""The order of the steps, and when waiting samples become a batch. Pure rules; no job calls another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from watcher.domain.errors import ConfigError
from watcher.domain.models import BatchRules, SamplingMethod, Step


@dataclass(frozen=True, slots=True)
class Done:
    """The run did its work; `result` is kept with it."""

    result: dict[str, object]


@dataclass(frozen=True, slots=True)
class Snooze:
    """The run cannot go on now and wants to be called again; this is no failed attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Discard:
    """There is nothing to do for this run, and the batch ends here."""

    reason: str


Outcome = Done | Snooze | Discard

# What a run of the store means to the program that works on it. Raised when a program of the version before would do
# something wrong with the runs of this one; processes of different numbers do not work side by side.
WORK_VERSION = 1
# Steps that work sample by sample, so that a large batch can be cut into shards.
SHARDED_STEPS = frozenset({Step.UPLOAD, Step.METADATA, Step.EMBED})
# Steps that change the tags and embeddings of the dataset, or the number of its samples: in the order of batches.
ORDERED_STEPS = frozenset({Step.UPLOAD, Step.METADATA, Step.EMBED, Step.SAMPLING})

_NEEDS: dict[Step, Step] = {
    Step.METADATA: Step.UPLOAD,
    Step.EMBED: Step.UPLOAD,
    Step.SAMPLING: Step.EMBED,
    Step.DELIVER: Step.SAMPLING,
}


def compute_next_step(steps: Sequence[Step], finished: Collection[Step]) -> Step | None:
    """The first of `steps` that is not finished; None when all are."""
    return next((step for step in steps if step not in finished), None)


def order_steps(steps: Collection[Step], *, method: SamplingMethod) -> tuple[Step, ...]:
    """The steps in their only order, checked for what each needs.

    Raises:
        ConfigError: a step stands without the one it needs; the text names the way out.
    """
    if not steps:
        raise ConfigError("no steps are configured: name at least one, for example upload")
    for step in steps:
        need = _NEEDS.get(step)
        if need is not None and need not in steps:
            why = f" (method {method})" if step is Step.SAMPLING else ""
            raise ConfigError(f"the step {step}{why} needs the step {need}: add {need}, or leave {step} out")
    return tuple(step for step in Step if step in steps)


def compute_most_samples(rules: BatchRules, *, mean_bytes: float) -> int:
    """How many samples the largest batch holds, by count and by bytes; at least 1.

    Args:
        rules: the watch's.
        mean_bytes: size of a sample, as far as it is known.
    """
    if rules.max_bytes is None:
        return rules.max_samples
    return max(1, min(rules.max_samples, int(rules.max_bytes / max(1.0, mean_bytes))))


def compute_batch_size(
    *, n_waiting: int, oldest_wait_s: float, n_open: int, rules: BatchRules, most_samples: int | None = None
) -> int:
    """How many of the waiting samples make the next batch now; 0 for none.

    Args:
        n_waiting: samples that may be cut; with a cron line those that waited at its last time.
        oldest_wait_s: how long the first of them has waited.
        n_open: batches under way.
        rules: the watch's.
        most_samples: see `compute_most_samples`; absent: `rules.max_samples`.
    """
    most = rules.max_samples if most_samples is None else most_samples
    if n_waiting == 0 or n_open >= rules.max_open:
        return 0
    is_due = (
        rules.cron is not None
        or n_waiting >= min(rules.min_samples, most)
        or oldest_wait_s >= rules.max_wait_s
    )
    return min(n_waiting, most) if is_due else 0
