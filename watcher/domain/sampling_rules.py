"""What a watch is told about novelty, budgets and scores."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class BudgetPeriod(StrEnum):
    """What a budget is for; weeks begin on Monday."""

    BATCH = "batch"
    DAY = "day"
    WEEK = "week"


class Lack(StrEnum):
    """What a registered sample may lack that a sampling needs."""

    VECTOR = "vector"
    SCORE = "score"


# A source that serves not one of so many samples is broken itself; of fewer it may be the samples.
LEAST_TO_BLAME_THE_SOURCE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRules:
    """Where scores come from: one of `file`, `metadata_key` and `command`.

    Attributes:
        file: CSV with the columns `file_name` and `score`, or JSON Lines with these keys; read anew at each sampling.
        metadata_key: key in the custom metadata of the sample on the server; dots lead into objects.
        command: program and arguments; it gets file names as JSON strings, a line each, and prints JSON Lines.
        type: name of the scores at the query tag.
        default: score of samples of which the source has none that can be used; None leaves them out.
        time_limit_s: longest run of the command.
    """

    file: str | None = None
    metadata_key: str | None = None
    command: tuple[str, ...] = ()
    type: str = "watcher"
    default: float | None = None
    time_limit_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyRules:
    """What counts as known already, and what follows from it.

    Attributes:
        near_duplicate_distance: samples at most this far (Euclidean) from a known one are near-duplicates; None takes
            what was measured for the embedder, and no sample is one where nothing was.
        exclude_near_duplicates: whether they are kept out of the sampling.
        repeat_distance: at most this far: the same picture again; None as above.
        min_ratio: a batch whose novelty is below this is not sampled; None samples every batch.
        history_batches: novelty is relative to this many earlier batches.
        dark_contrast: a picture whose levels (0 to 1) have a smaller standard deviation shows next to nothing.
        exact_up_to: beyond this many known vectors an index answers, if usearch is installed.
    """

    near_duplicate_distance: float | None = None
    exclude_near_duplicates: bool = False
    repeat_distance: float | None = None
    min_ratio: float | None = None
    history_batches: int = 20
    dark_contrast: float = 0.03
    exact_up_to: int = 2_000_000
