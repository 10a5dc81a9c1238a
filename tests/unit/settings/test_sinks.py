"""The receivers of a watch's picks: by kind and name, checked as a whole, their secrets never shown."""

from __future__ import annotations

import importlib.util

import pytest

from tests.builders import run_command
from watcher.domain.delivery import (
    ImageReference,
    LabelStudioRules,
    ManifestFormat,
    ManifestRules,
    SinkConfig,
    SinkKind,
    WebhookRules,
)
from watcher.domain.errors import ConfigError
from watcher.settings.root import load_settings

PRE = "WATCHER_WATCHES__GATE__DELIVER__"
HOOK = {
    f"{PRE}WEBHOOK__QA__URL": "https://hooks.example.com/services/T0KEN?x=1",
    f"{PRE}WEBHOOK__QA__SECRET": "s3cret-s3cret-s3cret",
}
STUDIO = {
    f"{PRE}LABEL_STUDIO__TEAM__URL": "http://label-studio:8080",
    f"{PRE}LABEL_STUDIO__TEAM__TOKEN": "t0ken-t0ken",
    f"{PRE}LABEL_STUDIO__TEAM__PROJECT": "Gate",
}


def load(environ):
    (config,) = load_settings(environ).build_watch_configs()
    return {sink.name: sink for sink in config.deliver.sinks}


def refusal(environ) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return str(caught.value)


def test_watch_without_sinks_writes_manifests_into_selected():
    assert load({}) == {"manifest": SinkConfig(name="manifest", rules=ManifestRules())}


def test_sinks_of_every_kind_stand_side_by_side_by_name():
    sinks = load(
        {
            **HOOK,
            **STUDIO,
            f"{PRE}WEBHOOK__OPS__URL": "http://127.0.0.1:9000/",
            f"{PRE}WEBHOOK__OPS__SECRET": "another-secret-16",
            f"{PRE}WEBHOOK__OPS__MAX_PICKS": "7",
            f"{PRE}MANIFEST__LAKE__LOCATION": "s3://lake/picked",
            f"{PRE}MANIFEST__LAKE__FORMAT": "parquet",
            f"{PRE}GIVE_UP_AFTER_S": "3600",
        }
    )
    assert {name: sink.kind for name, sink in sinks.items()} == {
        "lake": SinkKind.MANIFEST,
        "ops": SinkKind.WEBHOOK,
        "qa": SinkKind.WEBHOOK,
        "team": SinkKind.LABEL_STUDIO,
    }
    assert sinks["lake"].rules == ManifestRules(location="s3://lake/picked", format=ManifestFormat.PARQUET)
    assert sinks["qa"].rules == WebhookRules(
        url="https://hooks.example.com/services/T0KEN?x=1", secret="s3cret-s3cret-s3cret"
    )
    assert sinks["ops"].rules.max_picks == 7
    assert sinks["team"].rules == LabelStudioRules(
        url="http://label-studio:8080", token="t0ken-t0ken", project="Gate"
    )
    assert sinks["team"].rules.image is ImageReference.REDIRECT


def test_secrets_of_sinks_may_lie_in_files(tmp_path):
    (tmp_path / "secret").write_text("from-a-file-0123456789\n")
    environ = {
        **HOOK,
        f"{PRE}WEBHOOK__QA__SECRET": "",
        f"{PRE}WEBHOOK__QA__SECRET_FILE": str(tmp_path / "secret"),
    }
    assert load(environ)["qa"].rules.secret == "from-a-file-0123456789"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({f"{PRE}WEBHOOK__QA__URL": "https://x.example.com"}, "sink 'qa': a webhook needs URL and SECRET"),
        ({**HOOK, f"{PRE}WEBHOOK__QA__SECRET": "short"}, "fewer than 16 bytes"),
        ({**HOOK, f"{PRE}WEBHOOK__QA__SECRET": "whsec_?"}, "no base64 follows"),
        ({**HOOK, f"{PRE}WEBHOOK__QA__URL": "http://x.example.com/T0KEN"}, "url is plain http"),
        ({**HOOK, f"{PRE}WEBHOOK__QA__URL": "ftp://x.example.com/T0KEN"}, "no http or https address"),
        ({**HOOK, f"{PRE}WEBHOOK__QA__URL": "https://u:T0KEN@x.example.com"}, "user or password"),
        ({**STUDIO, f"{PRE}LABEL_STUDIO__TEAM__TOKEN": ""}, "Label Studio needs URL, TOKEN"),
        ({**STUDIO, f"{PRE}LABEL_STUDIO__TEAM__PROJECT": "ab"}, "a title has 3 characters or more"),
        (
            {**STUDIO, f"{PRE}LABEL_STUDIO__TEAM__IMAGE_PREFIX": "s3://b/"},
            "image_prefix belongs to image=uri",
        ),
        ({**HOOK, f"{PRE}MANIFEST__QA__LOCATION": "out"}, "two sinks are called 'qa'"),
        ({f"{PRE}MANIFEST__A__LOCATION": "ftp://x/y"}, "neither a folder nor s3://bucket/prefix"),
        ({f"{PRE}MANIFEST__A__LOCATION": "s3://"}, "neither a folder nor s3://bucket/prefix"),
        ({f"{PRE}MANIFEST__A__LOCATION": "gate/picked"}, "output would become input"),
        ({f"{PRE}MANIFEST__A__LOCATION": "x/../gate"}, "output would become input"),
    ],
)
def test_sink_that_does_not_fit_together_is_refused_with_the_way_out(environ, told):
    text = refusal(environ)
    assert "watch 'gate'" in text
    assert told in text
    assert not any(secret in text for secret in ("T0KEN", "s3cret", "t0ken"))


def test_plain_http_may_be_allowed():
    environ = {**HOOK, f"{PRE}WEBHOOK__QA__URL": "http://hooks:80/", f"{PRE}WEBHOOK__QA__ALLOW_HTTP": "true"}
    assert load(environ)["qa"].rules.url == "http://hooks:80/"


def test_check_config_shows_sinks_without_their_secrets(tmp_path):
    done = run_command("check-config", WATCHER_DATA_DIR=str(tmp_path), **HOOK, **STUDIO)
    assert done.exit_code == 0, done.stderr
    assert "sink qa: webhook https://hooks.example.com, key 1" in done.stdout
    assert "sink team: label-studio http://label-studio:8080, project Gate, image redirect" in done.stdout
    assert not any(secret in done.output for secret in ("T0KEN", "s3cret", "t0ken"))


def test_secret_of_a_sink_that_is_no_value_is_not_shown():
    text = refusal({**HOOK, f"{PRE}WEBHOOK__QA__SECRET__X": "s3cret"})
    assert "s3cret" not in text


@pytest.mark.parametrize("location", ["s3://lake/picked", "gs://lake/picked", "az://lake/picked"])
def test_manifest_in_a_bucket_is_refused_where_nothing_speaks_to_buckets(monkeypatch, location):
    environ = {f"{PRE}MANIFEST__LAKE__LOCATION": location}
    assert load(environ)["lake"].rules == ManifestRules(location=location)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "obstore" else find_spec(name)
    )
    text = refusal(environ)
    assert "sink 'lake': manifests in a bucket need obstore, which this installation lacks" in text
    assert "'datasource-watcher[buckets]', or take the full image" in text
    assert load({f"{PRE}MANIFEST__LAKE__LOCATION": "lake"})["lake"].rules == ManifestRules(location="lake")


@pytest.mark.parametrize(
    "sink", ["WEBHOOK__QA__CA_CERTS", "LABEL_STUDIO__TEAM__CA_CERTS"], ids=lambda name: name.split("_")[0]
)
def test_certificates_of_a_sink_that_are_not_there_are_refused(sink):
    text = refusal({**HOOK, **STUDIO, f"{PRE}{sink}": "/no/such.pem"})
    assert "no such file of trusted certificates: '/no/such.pem'" in text


def test_sink_of_a_watch_that_delivers_nothing_is_refused_with_the_way_out():
    steps = {"WATCHER_WATCHES__GATE__STEPS": "upload,embed,sampling"}
    text = refusal({**HOOK, **steps, f"{PRE}MANIFEST__A__LOCATION": "out"})
    assert [line.split(" is a sink, but")[0] for line in text.splitlines()] == [
        f"watch 'gate': {PRE}MANIFEST__A",
        f"watch 'gate': {PRE}WEBHOOK__QA",
    ]
    assert "add deliver to the steps, or unset the sink" in text


def test_check_config_shows_no_sink_of_a_watch_that_delivers_nothing(tmp_path):
    environ = {"WATCHER_WATCHES__GATE__STEPS": "upload,embed,sampling"}
    done = run_command("check-config", WATCHER_DATA_DIR=str(tmp_path), **environ)
    assert done.exit_code == 0, done.stderr
    assert "sink" not in done.stdout
    assert "sink manifest: manifest selected (jsonl)" in run_command("check-config").stdout


@pytest.mark.parametrize(("one", "other"), [("out", "x/../out/"), ("s3://lake/out", "s3://lake/out/")])
def test_manifests_that_would_overwrite_each_other_are_refused(one, other):
    environ = {f"{PRE}MANIFEST__A__LOCATION": one, f"{PRE}MANIFEST__B__LOCATION": other}
    text = refusal(environ)
    assert text.startswith("watch 'gate': the sinks 'a' and 'b' write the same files (jsonl in ")
    assert sorted(load({**environ, f"{PRE}MANIFEST__B__FORMAT": "csv"})) == ["a", "b"]


def test_manifests_of_two_watches_may_share_a_folder_since_their_names_differ():
    environ = {f"WATCHER_WATCHES__{name}__DELIVER__MANIFEST__A__LOCATION": "out" for name in ("GATE", "ROOF")}
    assert len(load_settings(environ).build_watch_configs()) == 2
