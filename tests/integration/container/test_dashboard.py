"""The shipped dashboard over a real Prometheus that scrapes a real daemon that did real work."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.acceptance.daemon_process import DaemonProcess
from tests.photographs import write_photographs
from tests.prometheus import Prometheus
from tests.waiting import wait_for
from watcher.ops.alerts import render_alerts

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "watcher.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_dashboard_is_provisioned_from_where_it_lies():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "watcher.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert [path.name for path in (GRAFANA / "dashboards").iterdir()] == ["watcher.json"]


def test_panels_stand_beside_each_other_and_each_says_what_it_tells():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in PANELS)


@pytest.fixture(scope="module")
def scraped(prometheus_bin, tmp_path_factory):
    """A Prometheus that has watched two batches go through."""
    folder = tmp_path_factory.mktemp("dashboard")
    daemon = DaemonProcess(
        folder / "data",
        WATCHER_WATCHES__INCOMING__BATCH__MIN_SAMPLES="4",
        WATCHER_WATCHES__INCOMING__BATCH__MAX_SAMPLES="4",
        WATCHER_WATCHES__INCOMING__SCHEDULE__INTERVAL_S="1",
        WATCHER_WATCHES__INCOMING__SCHEDULE__JITTER_S="0",
        WATCHER_WATCHES__INCOMING__POLL__HOLD_BACK_S="1",
    )
    prometheus = Prometheus(
        prometheus_bin, folder / "prometheus", rules=render_alerts(objective_s=900, runbook_url="runbook.md")
    )
    try:
        daemon.start()
        prometheus.start()
        prometheus.aim(daemon.http)
        for batch in range(2):
            write_photographs(daemon.data_dir / "incoming" / str(batch), 4, seed=batch)
            wait_for(
                lambda batch=batch: done(prometheus) >= 4 * (batch + 1),
                limit_s=100,
                what=f"{4 * (batch + 1)} samples done in Prometheus",
                explain=daemon.read_log,
            )
        daemon.run_command("audit")
        yield prometheus
        assert daemon.terminate() == 0
    finally:
        prometheus.stop()
        daemon.stop_if_running()


def done(prometheus: Prometheus) -> float:
    return sum(float(series["value"][1]) for series in prometheus.query('watcher_samples{state="done"}'))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_returns_data(scraped, panel):
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", "5m").replace("$watch", ".*")
        assert "$" not in expr
        ends_s = time.monotonic() + 60  # a rate needs two scrapes
        while not (values := [float(series["value"][1]) for series in scraped.query(expr)]):
            assert time.monotonic() < ends_s, f"{panel['title']}: no data for {expr}"
            time.sleep(0.5)
        assert any(math.isfinite(value) for value in values), f"{panel['title']}: {values}"
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in series["metric"] for series in scraped.query(expr)), label


def test_prometheus_answers_what_a_person_asks(scraped):
    def ask(expr: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sorted(series["metric"].values())): float(series["value"][1])
            for series in scraped.query(expr)
        }

    assert ask("sum by (watch) (watcher_samples_discovered_total)") == {("incoming",): 8}
    assert ask('sum by (step) (watcher_runs_total{outcome="done"})') == {
        (step,): 2 for step in ("upload", "embed", "sampling", "deliver")
    }
    assert ask('watcher_batches{state="done"} == 2')
    assert ask("watcher_leader") != {}
    assert set(ask("watcher_scrape_store_up").values()) == {1}
    assert ask("watcher_oldest_pending_sample_timestamp_seconds") == {}
    assert abs(next(iter(ask("watcher_clock_skew_seconds").values()))) < 5
    assert scraped.find_firing() == set()


def test_exemplars_of_runs_reach_prometheus(scraped):
    import requests

    answer = requests.get(
        f"{scraped.url}/api/v1/query_exemplars",
        params={
            "query": "watcher_run_duration_seconds_bucket",
            "start": str(time.time() - 3600),
            "end": str(time.time()),
        },
        timeout=10,
    )
    traces = {
        exemplar["labels"]["trace_id"] for series in answer.json()["data"] for exemplar in series["exemplars"]
    }
    assert len(traces) >= 1
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)
