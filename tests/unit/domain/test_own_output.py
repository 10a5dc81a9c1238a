"""Own manifests below a listed prefix are told apart from what others put there."""

from __future__ import annotations

import pytest

from watcher.domain.delivery import DeliverRules, ManifestFormat, ManifestRules, SinkConfig
from watcher.domain.models import WatchConfig
from watcher.domain.own_output import build_own_output, find_relative


def build_config(location: str, *, form: ManifestFormat = ManifestFormat.JSONL) -> WatchConfig:
    rules = ManifestRules(location=location, format=form)
    return WatchConfig(
        name="cams", dataset="cams", deliver=DeliverRules(sinks=(SinkConfig(name="lake", rules=rules),))
    )


@pytest.mark.parametrize(
    ("source", "place", "below"),
    [
        ("s3://lake/in", "s3://lake/in/picked/", "picked/"),
        ("s3://lake/in/", "s3://lake/in", ""),
        ("s3://lake", "s3://lake/a//b", "a/b/"),
        ("azure://box/in", "az://box/in/out", "out/"),
        ("obs://lake/in", "s3://lake/in/out", "out/"),
        ("s3://lake/in", "s3://lake/in2", None),
        ("s3://lake/in", "s3://lake", None),
        ("s3://lake/in", "gs://lake/in/out", None),
        ("incoming", "s3://incoming/out", None),
    ],
)
def test_place_is_told_as_seen_from_the_datasource(source: str, place: str, below: str | None) -> None:
    assert find_relative(place, source=source) == below


@pytest.mark.scenario(number=30)
def test_manifest_below_a_listed_bucket_is_own_output_and_images_beside_it_are_not() -> None:
    own = build_own_output("s3://lake/in", [build_config("s3://lake/in/picked")])
    assert own.match("picked/cams-000001.jsonl")
    assert own.match("picked/cams-000001-2.jsonl")
    assert own.match(".lightly/thumbnails/a.webp")
    others = (
        "picked/cams-000001.jsonl.jpg",
        "picked/gate-000001.jsonl",
        "picked/cams-000001.csv",
        "picked/cams-000001.jpg",
        "a/picked/cams-000001.jsonl",
        "cams-000001.jsonl",
    )
    assert [name for name in others if own.match(name)] == []


def test_own_output_of_a_source_that_is_unknown_is_the_servers_alone() -> None:
    own = build_own_output(None, [build_config("s3://lake/in/picked")])
    assert own.match(".lightly/frames/a.jpg")
    assert not own.match("picked/cams-000001.jsonl")
