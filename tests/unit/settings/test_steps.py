"""Settings of the steps metadata and embed, and of batches: what belongs together, and the way out where it does not."""

from __future__ import annotations

import json
import sys

import pytest

from tests.unit.settings.test_watches import refusal, watches
from watcher.domain.models import Step
from watcher.domain.step_rules import (
    EmbedderKind,
    EmbedRules,
    MetadataPolicy,
    MetadataRules,
    MetadataSource,
    ResizeMode,
)

GATE = "WATCHER_WATCHES__GATE__"


def embed(**values: str) -> dict[str, str]:
    return {f"{GATE}EMBED__{name.upper()}": value for name, value in values.items()}


def metadata(**values: str) -> dict[str, str]:
    steps = {f"{GATE}STEPS": "upload,metadata"}
    return steps | {f"{GATE}METADATA__{name.upper()}": value for name, value in values.items()}


def test_embedder_is_the_descriptor_unless_told_otherwise():
    (config,) = watches({f"{GATE}FOLDER": "gate"}).values()
    assert config.embed == EmbedRules()
    assert config.metadata == MetadataRules()


def test_onnx_settings_arrive_as_rules(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    (config,) = watches(
        embed(
            kind="onnx",
            model=str(tmp_path / "m.onnx"),
            mean="0.485, 0.456,0.406",
            std="0.229,0.224,0.225",
            resize="pad",
            width_px="224",
            height_px="224",
            batch_size="8",
        )
    ).values()
    assert config.embed.kind is EmbedderKind.ONNX
    assert config.embed.preprocess.mean == (0.485, 0.456, 0.406)
    assert config.embed.preprocess.std == (0.229, 0.224, 0.225)
    assert config.embed.preprocess.resize is ResizeMode.PAD
    assert config.embed.batch_size == 8


def test_command_is_split_as_a_shell_would_and_a_token_is_never_shown():
    (config,) = watches(
        embed(kind="command", command=f"{sys.executable} -m 'my embedder'", version="v1", dim="64")
    ).values()
    assert config.embed.command == (sys.executable, "-m", "my embedder")
    (config,) = watches(
        embed(kind="http", url="https://e.example.com/x", token="s3cret-t0ken", version="v1", dim="64")
    ).values()
    assert config.embed.token == "s3cret-t0ken"
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "onnx"}, "EMBED__KIND=onnx needs WATCHER_WATCHES__GATE__EMBED__MODEL"),
        ({"kind": "onnx", "model": "/no/such/model"}, "EMBED__MODEL=/no/such/model: there is no such file"),
        ({"model": "m.onnx"}, "EMBED__KIND is descriptor: set WATCHER_WATCHES__GATE__EMBED__KIND to onnx"),
        ({"dim": "9"}, "EMBED__KIND to command or http, or unset"),
        ({"kind": "command"}, "needs WATCHER_WATCHES__GATE__EMBED__COMMAND"),
        (
            {"kind": "command", "command": "no-such-program-here"},
            "there is no program 'no-such-program-here'",
        ),
        ({"kind": "command", "command": "sh 'x"}, "is not quoted as a shell would have it"),
        ({"kind": "command", "command": "sh x"}, "needs WATCHER_WATCHES__GATE__EMBED__VERSION"),
        (
            {"kind": "command", "command": "sh x", "version": "a b"},
            "needs WATCHER_WATCHES__GATE__EMBED__VERSION",
        ),
        ({"kind": "command", "command": "sh x", "version": "1"}, "needs WATCHER_WATCHES__GATE__EMBED__DIM"),
        ({"kind": "http", "url": "ftp://x", "version": "1", "dim": "2"}, "EMBED__URL, an http(s) address"),
        ({"mean": "1,2"}, "WATCHER_WATCHES__GATE__EMBED__MEAN"),
    ],
)
def test_embedder_settings_that_do_not_fit_are_refused_with_the_way_out(values, told):
    assert told in refusal(embed(**values)).replace("\n", " ")


def test_embedder_settings_of_a_watch_without_the_step_are_not_looked_at():
    (config,) = watches({**embed(kind="onnx"), f"{GATE}STEPS": "upload"}).values()
    assert config.embed == EmbedRules()


def test_metadata_settings_arrive_as_rules(tmp_path):
    schema = {"type": "object", "required": ["camera"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (config,) = watches(
        metadata(
            source="static",
            values='{"camera": "{camera}", "n": 1, "nested": [{"at": "{arrived}"}]}',
            pattern="^(?P<camera>[^/]+)/",
            json_schema=str(tmp_path / "schema.json"),
            on_error="quarantine",
        )
    ).values()
    assert config.steps == (Step.UPLOAD, Step.METADATA)
    rules = config.metadata
    assert rules.source is MetadataSource.STATIC
    assert rules.values == {"camera": "{camera}", "n": 1, "nested": [{"at": "{arrived}"}]}
    assert (rules.schema, rules.on_error) == (schema, MetadataPolicy.QUARANTINE)


def test_sidecars_are_told_from_pictures_by_how_they_end():
    (config,) = watches(metadata(source="sidecar", sidecar="{folder}meta/{name}.meta.json")).values()
    assert config.metadata.is_sidecar("a/meta/b.jpg.meta.json")
    assert not config.metadata.is_sidecar("a/b.json")
    (config,) = watches(metadata(source="static", values='{"a": 1}')).values()
    assert not config.metadata.is_sidecar("a/b.json")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "the step metadata needs WATCHER_WATCHES__GATE__METADATA__SOURCE: sidecar, static or command"),
        ({"source": "static"}, "METADATA__VALUES is no JSON"),
        (
            {"source": "static", "values": "[1]"},
            "needs WATCHER_WATCHES__GATE__METADATA__VALUES, a JSON object",
        ),
        ({"source": "static", "values": '{"a": "{camera}"}'}, "nothing fills {camera}"),
        ({"source": "static", "values": '{"a": 1}', "pattern": "("}, "PATTERN is no regular expression"),
        ({"source": "static", "values": '{"a": 1}', "pattern": "a+"}, "PATTERN has no named group"),
        (
            {"source": "static", "values": '{"a": 1}', "command": "sh"},
            "set WATCHER_WATCHES__GATE__METADATA__SOURCE=command",
        ),
        ({"source": "sidecar", "sidecar": "all.json"}, "is one name for all pictures"),
        ({"source": "sidecar", "sidecar": "{stem}{ending}.json"}, "there is no {ending}"),
        ({"source": "sidecar", "sidecar": "{stem}.JPG"}, "must end like no picture does"),
        ({"source": "sidecar", "sidecar": "x{stem}"}, "must end like no picture does"),
        ({"source": "command"}, "needs WATCHER_WATCHES__GATE__METADATA__COMMAND"),
        ({"source": "sidecar", "json_schema": "/no/such/file"}, "JSON_SCHEMA=/no/such/file cannot be read"),
    ],
)
def test_metadata_settings_that_do_not_fit_are_refused_with_the_way_out(values, told):
    assert told in refusal(metadata(**values))


@pytest.mark.parametrize("body", ["{", "[]", '{"type": "nothing"}'])
def test_schema_that_is_none_is_refused(tmp_path, body):
    (tmp_path / "schema.json").write_text(body)
    told = refusal(metadata(source="sidecar", json_schema=str(tmp_path / "schema.json")))
    assert "JSON_SCHEMA" in told


@pytest.mark.parametrize(
    ("schema", "outside"),
    [
        ({"$ref": "https://example.com/a"}, "https://example.com/a"),
        ({"properties": {"a": {"items": {"$ref": "other.json#/a"}}}}, "other.json#/a"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"a": {}}}, "#/$defs/b"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "not": {"$ref": "#c"}}, "#c"),
        ({"properties": {"$ref": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}, None),
        (
            {
                "$id": "https://example.com/s",
                "not": {"$ref": "https://example.com/s#a"},
                "$defs": {"a": {"$anchor": "a"}},
            },
            None,
        ),
        ({"enum": [{"$ref": "https://example.com/a"}]}, None),
        ({"items": {"$ref": "#"}}, None),
    ],
)
def test_schema_that_refers_to_what_is_not_in_it_is_refused(tmp_path, schema, outside):
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    values = metadata(source="sidecar", json_schema=str(tmp_path / "schema.json"))
    if outside is None:
        (config,) = watches(values).values()
        assert config.metadata.schema == schema
    else:
        assert f"schema.json refers to {outside!r}, which is not in it" in refusal(values)


def test_metadata_source_without_the_step_is_refused():
    told = refusal({f"{GATE}METADATA__SOURCE": "sidecar"})
    assert "the steps leave metadata out: add it, or unset the source" in told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"CRON": "0 6 * * *", "MIN_SAMPLES": "5"},
            "BATCH__CRON and WATCHER_WATCHES__GATE__BATCH__MIN_SAMPLES are both",
        ),
        (
            {"CRON": "0 6 * * *", "MAX_WAIT_S": "5"},
            "BATCH__CRON and WATCHER_WATCHES__GATE__BATCH__MAX_WAIT_S are both",
        ),
        ({"CRON": "0 6 31 2 *"}, "never fires"),
        ({"CRON": "daily"}, "has 1 fields, not five"),
    ],
)
def test_batch_settings_that_do_not_fit_are_refused_with_the_way_out(values, told):
    assert told in refusal({f"{GATE}BATCH__{name}": value for name, value in values.items()})


def test_batch_by_cron_may_be_smaller_than_the_default_count():
    (config,) = watches({f"{GATE}BATCH__CRON": "0 6 * * *", f"{GATE}BATCH__MAX_SAMPLES": "10"}).values()
    assert (config.batch.cron, config.batch.max_samples) == ("0 6 * * *", 10)
