"""The settings of sampling and novelty of one watch, and what must fit among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated
from zoneinfo import ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator

from watcher.domain.budget import load_time_zone
from watcher.domain.models import SamplingMethod, SamplingRules, Step, WatchConfig
from watcher.domain.sampling_rules import BudgetPeriod, NoveltyRules, ScoreRules
from watcher.domain.step_rules import EmbedderKind, MetadataPolicy
from watcher.settings.commands import split_command
from watcher.settings.faults import Faults
from watcher.settings.groups import Group

_SAMPLING, _SCORES, _NOVELTY = SamplingRules(), ScoreRules(), NoveltyRules()
_SCORE_FILES = (".csv", ".jsonl", ".ndjson")


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class ScoreSettings(Group):
    """Where the scores for CORAL and ACTIVE_LEARNING come from; each is a number from 0 to 1."""

    file: str | None = Field(
        None, description="a CSV with the columns file_name and score, or JSON Lines with these keys"
    )
    metadata_key: str | None = Field(
        None,
        min_length=1,
        description="or a key in the custom metadata that the step metadata stored, such as a.b",
    )
    command: str | None = Field(
        None,
        description="or a program and its arguments, quoted as for a shell: it gets file names, a JSON string a line, "
        "and prints JSON Lines",
    )
    type: str = Field(
        _SCORES.type,
        pattern="^[a-zA-Z0-9_+=,.@:/-]{1,100}$",
        description="name of the scores on the server",
    )
    default: float | None = Field(
        None,
        ge=0,
        le=1,
        description="score of samples of which the source has none that can be used; without it they are left out",
    )
    time_limit_s: float = Field(
        _SCORES.time_limit_s, gt=0, le=86400, description="longest run of the command"
    )


class SamplingSettings(Group):
    """How samples are picked."""

    method: SamplingMethod = Field(
        _SAMPLING.method, description="CORESET, RANDOM, or by scores CORAL or ACTIVE_LEARNING"
    )
    budget: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="picks a batch, day or week; default: 10, unless budget_share is set",
    )
    budget_share: float | None = Field(
        None, gt=0, le=1, description="instead: as a share of the samples, such as 0.05"
    )
    budget_per: BudgetPeriod = Field(_SAMPLING.budget_per, description="batch, day or week")
    time_zone: str = Field(
        _SAMPLING.time_zone, description="whose days and weeks, such as Europe/Zurich; weeks begin on Monday"
    )
    min_distance: float | None = Field(None, gt=0, description="no two picks closer than this")
    preselected_tags: Annotated[tuple[str, ...], BeforeValidator(_split_commas)] = Field(
        (), description="comma separated: tags whose samples count as picked, such as those labelled already"
    )
    scores: ScoreSettings = ScoreSettings()
    time_limit_s: float = Field(
        _SAMPLING.time_limit_s, gt=0, le=604800, description="longest wait for the server"
    )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            load_time_zone(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"there is no time zone {value!r} on this machine: take a name such as UTC or Europe/Zurich"
            ) from None
        return value

    def build_rules(self, where: str) -> SamplingRules:
        """The rules as the daemon takes them.

        Args:
            where: how the variables start, for errors.

        Raises:
            ConfigError: two budgets are set, or the command of the scores is none.
        """
        faults = Faults()
        if self.budget is not None and self.budget_share is not None:
            faults.add(
                f"sampling.budget {self.budget} and sampling.budget_share {self.budget_share:g} are both set: leave "
                "one of them out"
            )
        values = dict(self)
        if self.budget is None and self.budget_share is None:
            values["budget"] = _SAMPLING.budget
        command: tuple[str, ...] = ()
        if self.scores.command is not None:
            command = faults.gather(lambda: self._split_command(where), command)
        faults.refuse()
        scores = ScoreRules(**{**dict(self.scores), "command": command})
        return SamplingRules(**values | {"scores": scores})

    def _split_command(self, where: str) -> tuple[str, ...]:
        return split_command(self.scores.command, f"{where}SCORES__COMMAND", "sampling.scores.command")


class NoveltySettings(Group):
    """What counts as known already, and what follows from it."""

    near_duplicate_distance: float | None = Field(
        None,
        ge=0,
        description="samples at most this far from a known one are near-duplicates; default: what was measured for "
        "the embedder (0.245 for the descriptor, none for others)",
    )
    exclude_near_duplicates: bool = Field(
        _NOVELTY.exclude_near_duplicates, description="keep near-duplicates out of the sampling"
    )
    repeat_distance: float | None = Field(
        None,
        ge=0,
        description="at most this far: the same picture again; default: as measured (0.002 for the descriptor)",
    )
    min_ratio: float | None = Field(
        None, gt=0, le=100, description="sample a batch only if its novelty is at least this"
    )
    history_batches: int = Field(
        _NOVELTY.history_batches, ge=1, le=1000, description="novelty is relative to this many batches before"
    )
    dark_contrast: float = Field(
        _NOVELTY.dark_contrast,
        ge=0,
        le=0.5,
        description="a picture whose levels (0 to 1) deviate less than this counts as dark",
    )
    exact_up_to: int = Field(
        _NOVELTY.exact_up_to,
        ge=0,
        description="known vectors up to which each is compared; beyond it an index answers, if usearch is there",
    )


def find_sampling_faults(config: WatchConfig, scores: ScoreSettings) -> Iterator[str]:
    """What does not fit together, each with the way out.

    Args:
        config: the watch.
        scores: as they were set, since the rules lack what was refused already.
    """
    yield from _find_score_faults(config, scores)
    novelty = config.novelty
    set_ones = [
        name
        for name, is_set in (
            ("novelty.exclude_near_duplicates", novelty.exclude_near_duplicates),
            ("novelty.min_ratio", novelty.min_ratio is not None),
        )
        if is_set
    ]
    if set_ones and Step.SAMPLING not in config.steps:
        bear, them = ("bears", "it") if len(set_ones) == 1 else ("bear", "them")
        yield (
            f"{' and '.join(set_ones)} {bear} on the sampling, but the watch has no step sampling: add the step, or "
            f"leave {them} out"
        )
    if (
        novelty.exclude_near_duplicates
        and novelty.near_duplicate_distance is None
        and config.embed.kind is not EmbedderKind.DESCRIPTOR
    ):
        yield (
            f"novelty.exclude_near_duplicates needs novelty.near_duplicate_distance with the embedder "
            f"{config.embed.kind}: only for the descriptor a distance was measured"
        )


def _find_score_faults(config: WatchConfig, scores: ScoreSettings) -> Iterator[str]:
    method = config.sampling.method
    named = [
        name
        for name, value in (
            ("file", scores.file),
            ("metadata_key", scores.metadata_key),
            ("command", scores.command),
        )
        if value
    ]
    if method.needs_scores and not named:
        yield (
            f"the method {method} needs scores: set one of sampling.scores.file, sampling.scores.metadata_key and "
            "sampling.scores.command, or take CORESET or RANDOM"
        )
    if len(named) > 1:
        yield f"sampling.scores has {' and '.join(named)}: leave one of them"
    if named and not method.needs_scores:
        yield (
            f"sampling.scores.{named[0]} is set, but the method {method} reads no scores: take CORAL or "
            "ACTIVE_LEARNING, or leave it out"
        )
    if scores.file is not None and PurePath(scores.file).suffix.lower() not in _SCORE_FILES:
        yield f"sampling.scores.file {scores.file!r} must end with {', '.join(_SCORE_FILES)}, which tells its format"
    if scores.metadata_key is not None and Step.METADATA not in config.steps:
        yield (
            "sampling.scores.metadata_key reads what the step metadata stored: add metadata to the steps, or take "
            "sampling.scores.file or sampling.scores.command"
        )
    on_error = config.metadata.on_error
    if scores.metadata_key is not None and scores.default is None and on_error is MetadataPolicy.SKIP:
        yield (
            "sampling.scores.metadata_key with metadata.on_error=skip needs sampling.scores.default, since a sample "
            "without metadata has no score and could never be picked: set it, or metadata.on_error=quarantine"
        )
