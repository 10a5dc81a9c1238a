"""A plan tells what the next poll and batch do and cost, and does nothing."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from tests.integration.daemon.listing_double import DATASET_ID, ListingDouble, serve
from tests.integration.daemon.listing_double import TOKEN as DOUBLE_TOKEN
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.database.engine import Database
from watcher.domain.delivery import (
    DeliverRules,
    ImageReference,
    LabelStudioRules,
    ManifestFormat,
    ManifestRules,
    SinkConfig,
    WebhookRules,
)
from watcher.domain.errors import ConfigError
from watcher.domain.listing_facts import ListingFacts, TimeUnit
from watcher.domain.models import BatchRules, SamplingRules, WatchConfig
from watcher.domain.own_output import build_own_output
from watcher.domain.poll_rules import PollRules
from watcher.domain.sampling_rules import BudgetPeriod
from watcher.domain.step_rules import MetadataRules, MetadataSource, UploadMode, UploadRules
from watcher.exporting import export_tag
from watcher.jobs.deliveries import Deliverer, DeliveryLimits
from watcher.lightly import datasets
from watcher.lightly.transport import Transport
from watcher.planning import Plan, plan_watch
from watcher.sinks.base import Handover, PickLine, Receipt
from watcher.store import picks, watches
from watcher.store.tables import metadata

__all__ = ["pipeline"]


def plan(pipeline: Pipeline, *, transport: Transport | None = None) -> Plan:
    return plan_watch(
        pipeline.scene.database,
        config=pipeline.scene.config,
        transport=transport or pipeline.scene.build_transport(),
        now_ms=int(time.time() * 1000),
    )


def dump(pipeline: Pipeline) -> dict[str, list[str]]:
    with pipeline.scene.database.read() as session:
        return {
            name: sorted(map(str, session.execute(table.select()).all()))
            for name, table in metadata.tables.items()
        }


def test_plan_before_the_first_poll_makes_nothing(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    before = dump(pipeline)
    made = plan(pipeline)
    assert (made.is_attached, made.n_new, made.batch_sizes, made.n_picks) == (False, None, None, None)
    assert made.listing == "there is no dataset 'cams' on the server yet: the first poll makes it"
    assert dump(pipeline) == before
    assert datasets.fetch_datasets(pipeline.scene.build_transport()) == []
    elsewhere = plan_watch(
        pipeline.scene.database,
        config=replace(pipeline.scene.config, folder=None),
        transport=pipeline.scene.build_transport(),
        now_ms=int(time.time() * 1000),
    )
    assert elsewhere.listing.startswith("the server has no dataset 'cams': create it there and configure its")


def test_plan_counts_what_is_new_and_what_waits_and_does_nothing(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    pipeline.run_all()
    pipeline.scene.change(batch=BatchRules(min_samples=4, max_wait_s=1000, max_samples=4, max_open=2))
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(3)])
    pipeline.poll()
    _put_pictures(pipeline.scene, [f"new {number}.jpg" for number in range(7)])
    before = dump(pipeline), sorted(pipeline.list_remote()), sorted(pipeline.list_tags())
    made = plan(pipeline)
    assert (made.n_new, made.n_waiting, made.batch_sizes, made.n_left) == (7, 3, [4, 4], 2)
    assert made.is_due
    assert made.n_picks == 6
    assert made.listing == ""
    with pipeline.scene.database.read() as session:
        sizes = [
            row.size_bytes
            for row in session.execute(metadata.tables["samples"].select())
            if row.size_bytes is not None
        ]
    assert made.n_bytes == round(8 * sum(sizes) / len(sizes))
    assert made.bytes_are.startswith("estimated")
    assert (dump(pipeline), sorted(pipeline.list_remote()), sorted(pipeline.list_tags())) == before


def test_plan_counts_what_a_poll_would_find_in_the_units_of_the_server(database: Database) -> None:
    double = ListingDouble(unit_ms=1)
    for name in (
        "a.jpg",
        "b.jpg",
        "a.json",
        ".lightly/thumbnails/a.webp",
        "out/w-000001.jsonl",
        "/absolute.jpg",
    ):
        double.put(name, ago_s=40)
    double.put("late.jpg", ago_s=1500)
    double.put("older.jpg", ago_s=9000)
    config = WatchConfig(
        name="w",
        dataset="w",
        poll=PollRules(hold_back_s=0, overlap_s=60, overlap_max_s=3600),
        metadata=MetadataRules(source=MetadataSource.SIDECAR),
        deliver=DeliverRules(
            sinks=(
                SinkConfig(
                    name="lake",
                    rules=ManifestRules(location=f"s3://{DATASET_ID}/in/out", format=ManifestFormat.JSONL),
                ),
            )
        ),
    )
    now_ms = int(time.time() * 1000)
    with database.write() as session:
        watch = watches.ensure_watch(session, name="w", server="double", dataset_id=DATASET_ID, now_ms=1)
        watches.record_probe(
            session, watch_id=watch.id, facts=ListingFacts(unit=TimeUnit.MILLISECONDS), now_ms=1
        )
        watches.update_mark(session, watch_id=watch.id, mark_s=now_ms // 1000 - 100, now_ms=now_ms)
        watches.record_lateness(session, watch_id=watch.id, lateness_s=1400, now_ms=now_ms)
    with serve(double), closing(Transport(server=double.url, token=DOUBLE_TOKEN)) as transport:
        made = plan_watch(
            database,
            config=config,
            transport=transport,
            now_ms=now_ms,
            find_own_output=lambda dataset_id: build_own_output(f"s3://{dataset_id}/in", [config]),
        )
    assert (made.n_new, made.listing) == (3, "")


def test_plan_of_a_server_that_is_away_still_tells_the_ledger(pipeline: Pipeline, free_port: int) -> None:
    pipeline.scene.change(batch=BatchRules(min_samples=100, max_wait_s=1000))
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    away = Transport(server=f"http://127.0.0.1:{free_port}", token="t", retry_total_s=0.1)
    made = plan(pipeline, transport=away)
    assert (made.n_new, made.n_pages, made.n_waiting, made.is_due) == (None, None, 1, None)
    assert "could not connect" in made.listing


@pytest.mark.parametrize("mode", UploadMode)
def test_requests_of_a_step_are_about_as_many_as_planned(pipeline: Pipeline, mode: UploadMode) -> None:
    pipeline.scene.change(upload=UploadRules(mode=mode, workers=2))
    _put_pictures(pipeline.scene, ["first.jpg"])
    pipeline.poll()
    pipeline.run_all()
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(20)])
    planned = {step.step: step.n_requests for step in plan(pipeline).steps}
    seen: Counter[str] = Counter()
    real_build = pipeline.scene.build_transport
    step = ""

    def build(token: str = "integration-token") -> Transport:
        made = real_build(token)
        return Transport(server=made.server, token=token, observer=lambda _seen: seen.update([step]))

    pipeline.poll()
    pipeline.scene.build_transport = build
    runner = pipeline.build_runner()
    while True:
        open_runs = [run for run in pipeline.load_runs(2) if run.state.value == "ready"]
        if not open_runs:
            break
        step = open_runs[0].step.value
        assert runner.run_next(beat=lambda: None)
    assert seen["upload"] > 20
    for name, n_planned in planned.items():
        assert seen[name] / 2 <= n_planned <= max(4, 2 * seen[name]), (name, planned, seen)


def put_and_poll(pipeline: Pipeline, names: list[str]) -> None:
    _put_pictures(pipeline.scene, names)
    pipeline.poll()


def choose_noon() -> str:
    """A time zone in which no day ends within the next hours."""
    return f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"


def count_picks(pipeline: Pipeline, batch_id: int) -> int:
    with pipeline.scene.database.read() as session:
        return len(picks.load_picks(session, batch_id=batch_id))


@pytest.mark.parametrize("per", [BudgetPeriod.DAY, pytest.param(BudgetPeriod.WEEK, marks=pytest.mark.deep)])
@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"budget": 8}, [5, 3, 0]),  # of batches of 5, 4 and 3
        ({"budget": None, "budget_share": 0.3}, [2, 1, 1]),  # 1.5, 2.7 and 3.6 of all so far
    ],
)
def test_plan_tells_the_picks_that_the_next_batch_makes_of_a_budget(
    pipeline: Pipeline, per: BudgetPeriod, budget: dict[str, float | None], expected: list[int]
) -> None:
    pipeline.scene.change(sampling=SamplingRules(budget_per=per, time_zone=choose_noon(), **budget))
    put_and_poll(pipeline, [f"a{number}.jpg" for number in range(5)])
    pipeline.run_all()
    assert count_picks(pipeline, 1) == expected[0]
    _put_pictures(pipeline.scene, [f"b{number}.jpg" for number in range(4)])
    made = plan(pipeline)
    assert (made.n_picks, made.n_spent) == (expected[1], expected[0])
    pipeline.poll()
    _put_pictures(pipeline.scene, [f"c{number}.jpg" for number in range(3)])
    # The second batch is cut, but not sampled yet: it goes before the third.
    for _ in range(3):
        made = plan(pipeline)
        assert (made.n_picks, made.n_spent) == (expected[2], expected[0] + expected[1])
        pipeline.run_once()
    pipeline.run_all()
    assert count_picks(pipeline, 2) == expected[1]
    pipeline.poll()
    pipeline.run_all()
    assert count_picks(pipeline, 3) == expected[2]
    assert sum(delivery.n_picks for delivery in made.deliveries) == expected[2]


def test_plan_of_a_share_a_batch_rounds_as_the_sampling_does(pipeline: Pipeline) -> None:
    pipeline.scene.change(sampling=SamplingRules(budget=None, budget_share=0.3))
    put_and_poll(pipeline, ["first.jpg"])
    pipeline.run_all()
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(4)])
    made = plan(pipeline)
    assert (made.n_picks, made.n_spent, made.budget) == (1, 0, "0.3 of the samples of a batch")
    pipeline.poll()
    pipeline.run_all()
    assert count_picks(pipeline, 2) == 1


def test_plan_tells_deliveries_by_sink(pipeline: Pipeline) -> None:
    sinks = (
        SinkConfig(name="lake", rules=ManifestRules(location="s3://b/x")),
        SinkConfig(name="hook", rules=WebhookRules(url="https://x", secret="s" * 16, max_picks=2)),
        SinkConfig(name="team", rules=LabelStudioRules(url="http://x", token="t", project="Cams")),
    )
    pipeline.scene.change(deliver=DeliverRules(sinks=sinks))
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(9)])
    made = {delivery.sink: delivery for delivery in plan(pipeline).deliveries}
    assert {name: (d.kind, d.n_deliveries, d.n_picks, d.n_requests) for name, d in made.items()} == {
        "lake": ("manifest", 1, 3, 3 + 1),
        "hook": ("webhook", 1, 3, 3 + 2),
        "team": ("label-studio", 1, 3, 2 + 2 + 1),
    }


def test_name_with_a_line_end_keeps_its_address_in_exports_and_deliveries(pipeline: Pipeline) -> None:
    class Receiver:
        reference = ImageReference.REDIRECT

        def deliver(self, handover: Handover) -> Receipt:
            lines.extend(pick.line for chunk in handover.iter_chunks(2, 0) for pick in chunk)
            return Receipt(location="here", facts={})

    lines: list[PickLine] = []
    names = ["a.jpg", "new\nline.jpg", "z.jpg"]
    _put_pictures(pipeline.scene, names)
    pipeline.poll()
    for _ in range(4):
        pipeline.run_once()
    transport = pipeline.scene.build_transport()
    exported = json.loads(export_tag(transport, dataset="cams", tag="cams-000001", with_read_urls=True))
    urls = {row["fileName"]: row["readUrl"] for row in exported}
    assert sorted(urls) == names
    for name in names:
        body = transport.read_url_bytes(urls[name], max_bytes=10**6).body
        assert body == (pipeline.scene.folder / name).read_bytes()
    deliverer = Deliverer(
        pipeline.build_parts(),
        build_sink=lambda _: Receiver(),
        owner="test",
        limits=DeliveryLimits(),
        stop=threading.Event(),
    )
    assert deliverer.run_next(beat=lambda: None)
    assert {line.file_name: line.read_url for line in lines} == urls


def test_export_holds_the_names_of_a_tag_with_addresses_that_last(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg", "b ü+%.jpg"])
    pipeline.poll()
    pipeline.run_all()
    transport = pipeline.scene.build_transport()
    named = export_tag(transport, dataset="cams", tag="initial-tag", with_read_urls=False).splitlines()
    assert sorted(named) == ["a.jpg", "b ü+%.jpg"]
    rows = json.loads(export_tag(transport, dataset="cams", tag="initial-tag", with_read_urls=True))
    assert [row["fileName"] for row in rows] == named
    for row in rows:
        body = transport.read_url_bytes(row["readUrl"], max_bytes=10**6).body
        assert body == (pipeline.scene.folder / row["fileName"]).read_bytes()
    with pytest.raises(ConfigError, match=r"no tag .absent.; the newest are: .*initial-tag"):
        export_tag(transport, dataset="cams", tag="absent", with_read_urls=False)
    with pytest.raises(ConfigError, match="no dataset 'absent'"):
        export_tag(transport, dataset="absent", tag="initial-tag", with_read_urls=False)
