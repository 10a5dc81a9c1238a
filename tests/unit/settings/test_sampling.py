"""Settings of sampling and novelty: what fits, and what is refused with the way out."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from watcher.domain.errors import ConfigError
from watcher.domain.models import SamplingMethod
from watcher.domain.sampling_rules import BudgetPeriod
from watcher.settings.watch import WatchSettings


def build(*, steps="upload,embed,sampling,deliver", sampling=None, novelty=None, metadata=None):
    settings = WatchSettings.model_validate(
        {"steps": steps, "sampling": sampling or {}, "novelty": novelty or {}, "metadata": metadata or {}}
    )
    return settings.build_config("gate")


def test_budget_is_ten_a_batch_unless_said_otherwise():
    rules = build().sampling
    assert (rules.budget, rules.budget_share, rules.budget_per) == (10, None, BudgetPeriod.BATCH)
    rules = build(sampling={"budget_share": "0.05", "budget_per": "day", "time_zone": "Asia/Tokyo"}).sampling
    assert (rules.budget, rules.budget_share, rules.budget_per) == (None, 0.05, BudgetPeriod.DAY)


def test_lists_are_read_from_text_as_variables_hold_it():
    rules = build(
        sampling={
            "method": "CORAL",
            "preselected_tags": "labelled, to label",
            "scores": {"command": "sh 'my model.py' --fast"},
        }
    ).sampling
    assert rules.method is SamplingMethod.CORAL
    assert rules.preselected_tags == ("labelled", "to label")
    assert rules.scores.command == ("sh", "my model.py", "--fast")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampling": {"budget": 5, "budget_share": 0.1}}, "both set: leave one"),
        ({"sampling": {"method": "CORAL"}}, "needs scores: set one of .* or take CORESET or RANDOM"),
        ({"sampling": {"method": "ACTIVE_LEARNING"}}, "needs scores"),
        (
            {"sampling": {"method": "CORAL", "scores": {"file": "a.csv", "command": "x"}}},
            "file and command: leave one",
        ),
        (
            {"sampling": {"method": "CORAL", "scores": {"command": "nosuchprog a"}}},
            "SAMPLING__SCORES__COMMAND: there is no program 'nosuchprog'",
        ),
        (
            {"sampling": {"method": "CORAL", "scores": {"command": "sh 'a"}}},
            "SAMPLING__SCORES__COMMAND is not quoted as a shell would have it",
        ),
        ({"sampling": {"scores": {"file": "a.csv"}}}, "CORESET reads no scores: take CORAL"),
        ({"sampling": {"method": "CORAL", "scores": {"file": "a.xlsx"}}}, "must end with .csv"),
        ({"sampling": {"method": "CORAL", "scores": {"metadata_key": "score"}}}, "add metadata to the steps"),
        (
            {
                "steps": "upload,metadata,embed,sampling",
                "metadata": {"source": "sidecar"},
                "sampling": {"method": "CORAL", "scores": {"metadata_key": "score"}},
            },
            "needs sampling.scores.default.*: set it, or metadata.on_error=quarantine",
        ),
        (
            {"steps": "upload,embed", "novelty": {"exclude_near_duplicates": True}},
            "no step sampling: add the step",
        ),
        ({"steps": "upload", "novelty": {"min_ratio": 0.5}}, "no step sampling: add the step"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(given, said):
    with pytest.raises(ConfigError, match=said):
        build(**given)


@pytest.mark.parametrize(
    "sampling",
    [
        {"budget": 0},
        {"budget_share": 0},
        {"budget_share": 1.1},
        {"budget_per": "month"},
        {"time_zone": "Europe/Nowhere"},
        {"time_zone": "../etc/passwd"},
        {"scores": {"default": 1.5}},
        {"scores": {"type": "two words"}},
    ],
)
def test_values_out_of_range_are_refused(sampling):
    with pytest.raises(ValidationError):
        build(sampling=sampling)


@pytest.mark.parametrize(
    ("scores", "metadata"),
    [({"default": 0.1}, {}), ({}, {"on_error": "quarantine"})],
    ids=["default", "quarantine"],
)
def test_scores_from_metadata_are_taken_where_a_sample_without_any_holds_no_batch(scores, metadata):
    rules = build(
        steps="upload,metadata,embed,sampling",
        metadata={"source": "sidecar", **metadata},
        sampling={"method": "CORAL", "scores": {"metadata_key": "model.doubt", **scores}},
    ).sampling.scores
    assert rules.metadata_key == "model.doubt"
