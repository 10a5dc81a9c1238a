"""A manifest is there whole or not at all, for its owner alone, and says the same in every format."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.unit.sinks.conftest import Batch
from watcher.domain.delivery import ManifestFormat, ManifestRules
from watcher.domain.errors import ConfigError, StoreUnavailableError
from watcher.sinks.manifest import ManifestSink

NAMES = ["日本 'x'.jpg", "line\nbreak.jpg", 'a+b,"%25".jpg']


def deliver(parts, names, form=ManifestFormat.JSONL, **changes) -> Path:
    sink = ManifestSink(ManifestRules(format=form), parts)
    return Path(sink.deliver(Batch(names, **changes).handover()).location)


def read(path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_manifest_is_one_json_object_a_line_in_the_given_order(parts):
    path = deliver(parts, NAMES)
    assert path == parts.data_dir / "selected" / "gate-000001.jsonl"
    rows = read(path)
    assert [row["file_name"] for row in rows] == NAMES
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


def test_csv_and_parquet_say_the_same_as_json_lines(parts):
    expected = [
        {**row, "reason": json.dumps(row["reason"], separators=(",", ":"))}
        for row in read(deliver(parts, NAMES))
    ]
    with deliver(parts, NAMES, ManifestFormat.CSV).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{**row, "rank": int(row["rank"])} for row in rows] == expected
    table = pyarrow.parquet.read_table(deliver(parts, NAMES, ManifestFormat.PARQUET))
    assert table.to_pylist() == expected


@pytest.mark.parametrize("form", ManifestFormat)
def test_manifest_of_many_chunks_holds_every_line(parts, form):
    names = [f"{number}.jpg" for number in range(1201)]
    path = deliver(parts, names, form)
    if form is ManifestFormat.PARQUET:
        found = pyarrow.parquet.read_table(path)["file_name"].to_pylist()
    elif form is ManifestFormat.CSV:
        found = [row[0] for row in csv.reader(path.read_text(encoding="utf-8").splitlines())][1:]
    else:
        found = [row["file_name"] for row in read(path)]
    assert found == names


@pytest.mark.parametrize("form", ManifestFormat)
def test_manifest_of_no_picks_has_no_lines(parts, form):
    path = deliver(parts, [], form)
    if form is ManifestFormat.PARQUET:
        assert pyarrow.parquet.read_table(path).num_rows == 0
    else:
        assert len(path.read_text().splitlines()) == (form is ManifestFormat.CSV)


def test_manifest_delivered_again_takes_the_place_of_the_first(parts):
    deliver(parts, ["old"])
    path = deliver(parts, ["new"])
    assert [row["file_name"] for row in read(path)] == ["new"]
    assert [path.name for path in path.parent.iterdir()] == ["gate-000001.jsonl"]


@pytest.mark.parametrize("form", ManifestFormat)
def test_manifest_that_cannot_be_finished_leaves_the_one_before_and_no_rest(parts, form):
    path = deliver(parts, ["old"], form)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        deliver(parts, [str(number) for number in range(600)], form, fail_after=500)
    assert path.read_bytes() == before
    assert [path.name for path in path.parent.iterdir()] == [f"gate-000001.{form}"]


def test_manifest_that_a_killed_attempt_left_half_written_is_removed(parts):
    folder = parts.data_dir / "selected"
    folder.mkdir()
    (folder / ".gate-000001.jsonl.abcdef").write_text("half")
    (folder / ".gate-000002.jsonl.abcdef").write_text("another batch's")
    deliver(parts, [])
    assert sorted(path.name for path in folder.iterdir()) == [
        ".gate-000002.jsonl.abcdef",
        "gate-000001.jsonl",
    ]


def test_manifest_is_for_its_owner_alone(parts):
    assert deliver(parts, ["a"]).stat().st_mode & 0o777 == 0o600


def test_manifest_whose_folder_is_in_the_way_is_tried_again_later(parts):
    (parts.data_dir / "selected").write_text("a file")
    with pytest.raises(StoreUnavailableError, match=r"cannot be written to .*selected") as failed:
        deliver(parts, ["a"])
    assert failed.value.retryable


def test_parquet_without_pyarrow_names_what_to_install(parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"datasource-watcher\[parquet\]"):
        deliver(parts, ["a"], ManifestFormat.PARQUET)
