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
from watcher.domain.errors import ConfigError, DeliveryError, StoreUnavailableError
from watcher.sinks.manifest import ManifestSink

NAMES = ["日本 'x'.jpg", "line\nbreak.jpg", 'a+b,"%25".jpg', "carriage\rreturn.jpg"]


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


@pytest.mark.parametrize("form", ManifestFormat)
def test_manifest_of_the_same_picks_takes_the_place_of_the_first(parts, form):
    first = deliver(parts, NAMES, form)
    number = first.stat().st_ino
    assert deliver(parts, NAMES, form) == first
    assert first.stat().st_ino != number
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("form", ManifestFormat)
@pytest.mark.parametrize("other", [b"", b"{}\n", b'a,"b\n', b"\xff\x00PAR1", None])
def test_manifest_of_other_picks_is_left_alone_and_the_new_one_gets_a_name_of_its_own(parts, form, other):
    """As after a restore, which gives the batch's number out again."""
    first = deliver(parts, ["old"], form)
    if other is not None:
        first.write_bytes(other)
    before = first.read_bytes()
    second = deliver(parts, NAMES, form)
    assert second.name == f"gate-000001-2.{form}"
    assert first.read_bytes() == before
    assert deliver(parts, NAMES, form) == second
    assert deliver(parts, ["third"], form).name == f"gate-000001-3.{form}"


def test_manifest_whose_names_are_all_taken_says_what_to_do(parts):
    for number in range(9):
        deliver(parts, [f"{number}.jpg"])
    with pytest.raises(DeliveryError, match=r"to gate-000001-9\.jsonl are taken .* move some away"):
        deliver(parts, ["a"])


@pytest.mark.parametrize("form", ManifestFormat)
def test_manifest_that_cannot_be_finished_leaves_the_one_before_and_no_rest(parts, form):
    names = [str(number) for number in range(600)]
    path = deliver(parts, names, form)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        deliver(parts, names, form, fail_after=500)
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
