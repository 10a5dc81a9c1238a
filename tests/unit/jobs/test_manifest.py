"""A manifest is there whole or not at all, and for its owner alone."""

from __future__ import annotations

import json

import pytest

from watcher.sinks.manifest import ManifestLine, ManifestSink


def line(name: str = "a.jpg", rank: int = 1) -> ManifestLine:
    return ManifestLine(
        file_name=name,
        read_url=f"https://bucket.example.com/{rank}?sig=1",
        watch="gate",
        dataset_id="d",
        tag="gate-000001",
        rank=rank,
        batch="gate-000001",
        reason={"distance": 0.5},
    )


def read(path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_manifest_is_one_json_object_a_line_in_the_given_order(tmp_path):
    names = ["日本 'x'.jpg", "line\nbreak.jpg", "a+b %25.jpg"]
    path = ManifestSink(tmp_path / "selected").deliver(
        batch_key="gate-000001", lines=[line(name, rank) for rank, name in enumerate(names, 1)]
    )
    assert path == tmp_path / "selected" / "gate-000001.jsonl"
    rows = read(path)
    assert [row["file_name"] for row in rows] == names
    assert rows[0] == {
        "file_name": "日本 'x'.jpg",
        "read_url": "https://bucket.example.com/1?sig=1",
        "watch": "gate",
        "dataset_id": "d",
        "tag": "gate-000001",
        "rank": 1,
        "batch": "gate-000001",
        "reason": {"distance": 0.5},
    }


def test_manifest_delivered_again_takes_the_place_of_the_first(tmp_path):
    sink = ManifestSink(tmp_path)
    sink.deliver(batch_key="b", lines=[line("old")])
    path = sink.deliver(batch_key="b", lines=[line("new")])
    assert [row["file_name"] for row in read(path)] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["b.jsonl"]


def test_manifest_that_cannot_be_finished_leaves_the_one_before_and_no_rest(tmp_path):
    sink = ManifestSink(tmp_path)
    path = sink.deliver(batch_key="b", lines=[line("old")])

    def lines():
        yield line("new")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        sink.deliver(batch_key="b", lines=lines())
    assert [row["file_name"] for row in read(path)] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["b.jsonl"]


def test_manifest_that_is_being_written_is_not_there_yet(tmp_path):
    def lines():
        yield line()
        assert list(tmp_path.glob("*.jsonl")) == []

    ManifestSink(tmp_path).deliver(batch_key="b", lines=lines())
    assert list(tmp_path.glob("*.jsonl")) == [tmp_path / "b.jsonl"]


def test_manifest_is_for_its_owner_alone(tmp_path):
    path = ManifestSink(tmp_path).deliver(batch_key="b", lines=[line()])
    assert path.stat().st_mode & 0o777 == 0o600


def test_manifest_of_no_picks_is_an_empty_file(tmp_path):
    assert ManifestSink(tmp_path).deliver(batch_key="b", lines=[]).read_bytes() == b""
