"""The alert rules: from one objective, tried with promtool, each explained in the runbook."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from tests.builders import run_command
from watcher.cli.app import app
from watcher.ops.alerts import build_alerts, format_span, render_alerts
from watcher.settings.groups import AlertSettings
from watcher.settings.root import Settings
from watcher.settings.variables import iter_variables

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES, CASES = PROMETHEUS / "alerts.yml", PROMETHEUS / "alerts.test.yml"
RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text(encoding="utf-8")
DEFAULT = AlertSettings()
ALERTS = build_alerts(objective_s=DEFAULT.freshness_objective_s)
# Programs of the machine that the runbook may call besides ours.
OTHER_PROGRAMS = {"docker", "curl", "df", "du", "date", "timedatectl"}
FOREIGN_METRICS = {
    "up",
    "ALERTS",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}


def known_metrics() -> set[str]:
    names = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    histograms = set(
        re.findall(r"^\| `(\w+)` \| histogram", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    return (
        names
        | {f"{name}_{end}" for name in histograms for end in ("bucket", "sum", "count")}
        | FOREIGN_METRICS
    )


def find_metrics(expr: str) -> set[str]:
    return set(re.findall(r"\b(?:watcher_\w+|process_\w+|ALERTS|up)\b", re.sub(r'"[^"]*"', '""', expr)))


def run_promtool(promtool_bin: Path, *arguments: object) -> str:
    done = subprocess.run(
        [promtool_bin, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def find_sections() -> dict[str, str]:
    parts = re.split(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def find_blocks(language: str) -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_committed_rules_are_those_of_the_default_objective():
    rendered = render_alerts(objective_s=DEFAULT.freshness_objective_s, runbook_url=DEFAULT.runbook_url)
    assert RULES.read_text(encoding="utf-8") == rendered, (
        "run `watcher alerts --render > deploy/prometheus/alerts.yml`"
    )


def test_command_renders_the_rules_of_the_configured_objective(tmp_path):
    assert run_command("alerts", "--render", WATCHER_DATA_DIR=str(tmp_path)).stdout == RULES.read_text()
    changed = run_command(
        "alerts",
        "--render",
        WATCHER_DATA_DIR=str(tmp_path),
        WATCHER_ALERTS__FRESHNESS_OBJECTIVE_S="60",
        WATCHER_ALERTS__RUNBOOK_URL="https://wiki.example.com/watcher",
    ).stdout
    assert "> 60)" in changed
    assert '"https://wiki.example.com/watcher#watcherpollstale"' in changed
    listed = run_command("alerts", WATCHER_DATA_DIR=str(tmp_path)).stdout
    assert all(alert.name in listed for alert in ALERTS)


@pytest.mark.parametrize("objective_s", [1, 12.5, 900, 604_800])
def test_rules_of_any_objective_are_understood_by_prometheus(promtool_bin, tmp_path, objective_s):
    (tmp_path / "alerts.yml").write_text(render_alerts(objective_s=objective_s, runbook_url="x"))
    assert f"{len(ALERTS)} rules found" in run_promtool(
        promtool_bin, "check", "rules", tmp_path / "alerts.yml"
    )


def test_every_span_of_the_rules_follows_from_the_objective():
    def spans(objective_s: float) -> list[float]:
        return [alert.hold_s for alert in build_alerts(objective_s=objective_s)]

    assert spans(1800) == [2 * span for span in spans(900)]
    assert (format_span(900), format_span(3600), format_span(90), format_span(0.4), format_span(0)) == (
        "15m",
        "1h",
        "90s",
        "400ms",
        "0s",
    )


def test_rules_fire_and_stay_silent_as_their_cases_say(promtool_bin):
    assert "SUCCESS" in run_promtool(promtool_bin, "test", "rules", CASES)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        alert = case["name"].partition(":")[0]
        (question,) = case["promql_expr_test"]
        assert f'alertname="{alert}", alertstate="firing"' in question["expr"]
        fires.setdefault(alert, set()).add(bool(question["exp_samples"]))
    assert fires == {alert.name: {True, False} for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert_asks_for_metrics_that_exist(alert):
    assert find_metrics(alert.expr)
    assert find_metrics(alert.expr) <= known_metrics()


def test_every_alert_links_to_its_section_of_the_runbook_and_there_is_no_other():
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    for rule in rules:
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / path).is_file()
        assert anchor == rule["alert"].lower()
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
    assert list(find_sections()) == [rule["alert"] for rule in rules]


@pytest.mark.parametrize(("name", "text"), find_sections().items(), ids=list(find_sections()))
def test_section_of_the_runbook_tells_meaning_check_and_cure(name, text):
    for part in ("**Meaning.**", "**Check.**", "**Cure.**"):
        assert text.count(part) == 1, part
    assert "```promql" in text
    for link in re.findall(r"\]\(#(\w+)\)", text):
        assert link in {section.lower() for section in find_sections()}


@pytest.mark.parametrize(
    "line", sorted(set(find_blocks("console")) | set(re.findall(r"`(watcher [^`]+)`", RUNBOOK)))
)
def test_command_of_the_runbook_exists_with_its_options(line):
    words = shlex.split(line)
    if words[0] != "watcher":
        assert words[0] in OTHER_PROGRAMS
        return
    commands = typer.main.get_command(app).commands
    assert words[1] in commands, f"there is no command `watcher {words[1]}`"
    options = {
        name for option in commands[words[1]].params for name in (*option.opts, *option.secondary_opts)
    }
    for word in words[2:]:
        assert not word.startswith("-") or word in options, f"`watcher {words[1]}` has no option {word}"


def test_queries_of_the_runbook_are_promql_over_metrics_that_exist(promtool_bin, tmp_path):
    queries = find_blocks("promql")
    assert len(queries) > 15
    for query in queries:
        assert find_metrics(query) <= known_metrics(), query
    rules = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(queries)]
    for rule in rules:
        rule["record"] = "asked:" + "x" * (int(rule["record"].partition(":")[2]) + 1)
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    run_promtool(promtool_bin, "check", "rules", tmp_path / "asked.yml")


def test_settings_named_in_the_runbook_exist():
    known = {variable.name for variable in iter_variables(Settings)}
    assert set(re.findall(r"`(WATCHER_[A-Z_]+)`", RUNBOOK)) <= known
