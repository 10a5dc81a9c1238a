"""Watches by name: each its own rules, checked as a whole."""

from __future__ import annotations

import pytest

from watcher.domain.errors import ConfigError
from watcher.domain.models import SamplingMethod, Step, WatchConfig
from watcher.domain.step_rules import UploadMode
from watcher.settings.root import load_settings

REMOTE = {"LIGHTLY_TOKEN": "5ecr3t", "LIGHTLY_SERVER_LOCATION": "https://api.example.com"}


def watches(environ: dict[str, str]) -> dict[str, WatchConfig]:
    return {config.name: config for config in load_settings(environ).build_watch_configs()}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        watches(environ)
    return str(caught.value)


def test_watches_none_configured_gives_one_over_incoming():
    (config,) = watches({}).values()
    assert (config.name, config.dataset, config.folder) == ("incoming", "incoming", "incoming")
    assert config.steps == (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER)


def test_watches_none_configured_for_another_server_is_refused():
    assert "set WATCHER_WATCHES__<NAME>__DATASET" in refusal(REMOTE)


def test_watches_by_name_each_have_their_own_rules():
    found = watches(
        {
            "WATCHER_WATCHES__GATE__SCHEDULE__INTERVAL_S": "30",
            "WATCHER_WATCHES__GATE__BATCH__MAX_WAIT_S": "5",
            "WATCHER_WATCHES__GATE__SAMPLING__BUDGET": "7",
            "WATCHER_WATCHES__ROOF_2__DATASET": "roof cameras",
            "WATCHER_WATCHES__ROOF_2__FOLDER": "roof",
            "WATCHER_WATCHES__ROOF_2__SCHEDULE__CRON": "0 6 * * 1-5",
            "WATCHER_WATCHES__ROOF_2__STEPS": " embed,upload ",
            "WATCHER_WATCHES__ROOF_2__UPLOAD__MODE": "full",
            "WATCHER_WATCHES__ROOF_2__SAMPLING__METHOD": "RANDOM",
        }
    )
    assert sorted(found) == ["gate", "roof_2"]
    gate, roof = found["gate"], found["roof_2"]
    assert (gate.dataset, gate.folder, gate.interval_s, gate.batch.max_wait_s) == ("gate", "gate", 30.0, 5.0)
    assert gate.sampling.budget == 7
    assert (roof.dataset, roof.folder, roof.cron) == ("roof cameras", "roof", "0 6 * * 1-5")
    assert roof.steps == (Step.UPLOAD, Step.EMBED)
    assert roof.upload.mode is UploadMode.FULL
    assert roof.sampling.method is SamplingMethod.RANDOM
    assert roof.sampling.budget == 10


def test_watch_of_another_server_has_no_folder():
    (config,) = watches({**REMOTE, "WATCHER_WATCHES__GATE__DATASET": "g"}).values()
    assert config.folder is None


def test_watch_of_another_server_with_a_folder_is_refused():
    text = refusal({**REMOTE, "WATCHER_WATCHES__GATE__FOLDER": "x"})
    assert "remove WATCHER_WATCHES__GATE__FOLDER" in text


@pytest.mark.parametrize("field", ["DATASET", "FOLDER"])
def test_watches_of_one_dataset_or_folder_are_refused_by_both_names(field):
    text = refusal({f"WATCHER_WATCHES__GATE__{field}": "same", f"WATCHER_WATCHES__ROOF__{field}": "same"})
    assert text == f"the watches 'gate' and 'roof' both name the {field.lower()} 'same'"


@pytest.mark.parametrize("folder", ["/etc", "..", "../x", "a/../../x", ".", "./", "a/..", "", "  "])
def test_watch_whose_folder_leads_out_of_the_data_directory_is_refused(folder):
    if folder == "":
        assert (
            watches({"WATCHER_WATCHES__GATE__FOLDER": folder, "WATCHER_WATCHES__GATE__DATASET": "cameras"})[
                "gate"
            ].folder
            == "gate"
        )
        return
    text = refusal({"WATCHER_WATCHES__GATE__FOLDER": folder})
    assert "watch 'gate'" in text
    assert repr(folder) in text


@pytest.mark.scenario(number=30)
@pytest.mark.parametrize("folder", ["selected", "work", "platform", "selected/a", "platform/uploads"])
def test_watch_whose_folder_holds_what_the_daemon_writes_is_refused(folder):
    assert "the daemon itself writes" in refusal({"WATCHER_WATCHES__GATE__FOLDER": folder})


def test_watch_by_the_name_of_a_folder_the_daemon_writes_needs_another_folder():
    assert "the daemon itself writes" in refusal({"WATCHER_WATCHES__SELECTED__DATASET": "cameras"})
    assert watches({"WATCHER_WATCHES__SELECTED__FOLDER": "in"})["selected"].folder == "in"


@pytest.mark.parametrize("dataset", ["ab", "-gate", "cameras/gate", "Kamera Süd", "a" * 256, "gate\n"])
def test_watch_whose_dataset_the_platform_would_not_make_is_refused_by_its_variable(dataset):
    text = refusal({"WATCHER_WATCHES__GATE__DATASET": dataset})
    assert text.startswith(f"watch 'gate': the platform makes no dataset of the name {dataset!r}: ")
    assert "set WATCHER_WATCHES__GATE__DATASET to 3 to 255 letters" in text
    assert watches({**REMOTE, "WATCHER_WATCHES__GATE__DATASET": dataset})["gate"].dataset == dataset


def test_watch_with_a_name_that_is_no_dataset_needs_a_dataset_of_its_own():
    assert "makes no dataset of the name 'g'" in refusal({"WATCHER_WATCHES__G__STEPS": "upload"})
    assert watches({"WATCHER_WATCHES__G__DATASET": "gate"})["g"].dataset == "gate"


def test_watches_one_inside_the_folder_of_another_are_refused():
    text = refusal({"WATCHER_WATCHES__GATE__FOLDER": "in", "WATCHER_WATCHES__ROOF__FOLDER": "in/b"})
    assert "'in/b' lies in 'in'" in text
    assert len(watches({"WATCHER_WATCHES__GATE__FOLDER": "in", "WATCHER_WATCHES__ROOF__FOLDER": "in-b"})) == 2


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("embed", "the step embed needs the step upload"),
        ("upload,deliver", "the step deliver needs the step sampling"),
        (",", "no steps are configured"),
        ("upload,metadata", "the step metadata needs WATCHER_WATCHES__GATE__METADATA__SOURCE"),
    ],
)
def test_watch_with_steps_that_do_not_fit_is_refused_by_name(steps, reason):
    text = refusal({"WATCHER_WATCHES__GATE__STEPS": steps})
    assert text.startswith("watch 'gate': ")
    assert reason in text


def test_watch_with_a_step_that_does_not_exist_is_refused_with_those_that_do():
    text = refusal({"WATCHER_WATCHES__GATE__STEPS": "upload,embedd"})
    assert text.startswith("WATCHER_WATCHES__GATE__STEPS='embedd': ")
    assert "'embed'" in text


@pytest.mark.parametrize("method", ["CORAL", "ACTIVE_LEARNING"])
def test_watch_with_a_method_that_needs_scores_is_refused(method):
    text = refusal({"WATCHER_WATCHES__GATE__SAMPLING__METHOD": method})
    assert text.startswith(f"watch 'gate': the method {method} needs scores")


def test_watch_whose_batches_could_never_be_full_is_refused():
    text = refusal({"WATCHER_WATCHES__GATE__BATCH__MAX_SAMPLES": "50"})
    assert "min_samples 100 is above batch.max_samples 50" in text


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "garbage", "* * * *", "61 * * * *", "0 0 * * 8"])
def test_watch_with_an_impossible_cron_line_is_refused_by_name(cron):
    text = refusal({"WATCHER_WATCHES__GATE__SCHEDULE__CRON": cron})
    assert text.startswith("watch 'gate': ")
    assert "cron line" in text


def test_watches_with_several_problems_are_all_told_at_once():
    text = refusal({"WATCHER_WATCHES__GATE__STEPS": "embed", "WATCHER_WATCHES__ROOF__SCHEDULE__CRON": "x"})
    assert "watch 'gate'" in text
    assert "watch 'roof'" in text


@pytest.mark.parametrize("name", ["É", "A B", "a/b", "-A", "_A", ""])
def test_watch_with_an_odd_name_is_refused(name):
    assert f"WATCHER_WATCHES__{name}__DATASET" in refusal({f"WATCHER_WATCHES__{name}__DATASET": "x"})


def test_watch_with_a_name_longer_than_a_label_is_refused():
    assert "WATCHER_WATCHES__" in refusal({f"WATCHER_WATCHES__{'A' * 64}__DATASET": "x"})
    assert len(watches({f"WATCHER_WATCHES__{'A' * 63}__DATASET": "cameras"})) == 1


def test_all_that_is_wrong_with_a_watch_is_told_at_once():
    pre = "WATCHER_WATCHES__G__"
    text = refusal(
        {
            f"{pre}STEPS": "upload,deliver,metadata",
            f"{pre}METADATA__SOURCE": "static",
            f"{pre}METADATA__VALUES": "{",
            f"{pre}METADATA__PATTERN": "x",
            f"{pre}METADATA__COMMAND": "true",
            f"{pre}METADATA__JSON_SCHEMA": "/no/such.json",
            f"{pre}SAMPLING__BUDGET": "1",
            f"{pre}SAMPLING__BUDGET_SHARE": "0.5",
            f"{pre}SAMPLING__SCORES__FILE": "scores.xlsx",
            f"{pre}NOVELTY__MIN_RATIO": "0.5",
            f"{pre}DELIVER__MANIFEST__A__LOCATION": "ftp://x/y",
            f"{pre}DELIVER__WEBHOOK__B__URL": "https://example.org",
            f"{pre}SCHEDULE__CRON": "0 0 31 2 *",
            f"{pre}BATCH__MAX_SAMPLES": "50",
            f"{pre}POLL__OVERLAP_MAX_S": "1",
        }
    ).splitlines()
    assert all(line.startswith("watch 'g': ") for line in text)
    for told in (
        "the step deliver needs the step sampling",
        f"{pre}METADATA__COMMAND is set, but",
        "VALUES is no JSON",
        "JSON_SCHEMA=/no/such.json cannot be read",
        "both set: leave one of them out",
        "reads no scores: take CORAL",
        "must end with .csv",
        "novelty.min_ratio bears on the sampling",
        "sink 'a': location 'ftp://x/y' is neither",
        "sink 'b': a webhook needs URL and SECRET",
        "never fires",
        "min_samples 100 is above batch.max_samples 50",
        "at most poll.overlap_max_s 1 s",
        "the platform makes no dataset of the name 'g'",
    ):
        assert sum(told in line for line in text) == 1, told


def test_faults_of_an_embedding_service_and_a_model_are_told_at_once():
    pre = "WATCHER_WATCHES__GATE__EMBED__"
    text = refusal(
        {f"{pre}KIND": "http", f"{pre}URL": "ftp://x", f"{pre}MODEL": "m", f"{pre}CA_CERTS": "/no"}
    )
    for told in (
        "URL, an http(s) address",
        "MODEL is set, but",
        "VERSION, up to",
        "DIM, the length",
        "'/no'",
    ):
        assert told in text
    text = refusal({f"{pre}KIND": "onnx", f"{pre}MODEL": "/no", f"{pre}STD": "1,0,1"})
    assert "MODEL=/no: there is no such file" in text
    assert "STD holds 0" in text
