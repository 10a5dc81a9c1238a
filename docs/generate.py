"""Writes the pages that follow from the code: `python docs/generate.py` (`make docs-generated`); a test compares them.

`metrics.md` lists what a registry of the daemon holds; `events.md` what the calls of loggers say, read from the source.
"""

from __future__ import annotations

import ast
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from watcher.metrics import Metrics
from watcher.ops.alerts import render_alerts
from watcher.ops.collector import READ, UP
from watcher.ops.states import FAMILIES
from watcher.settings.groups import AlertSettings
from watcher.settings.root import Settings
from watcher.settings.variables import Variable, iter_variables

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "watcher"
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_EVENT = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_ERROR_FIELDS = ("error", "kind", "request_id")

_METRICS_HEAD = """# Metrics

Made from the code by `make docs-generated`; do not edit.

At `/metrics`, as text for Prometheus or as OpenMetrics, which carries exemplars too: `watcher_run_duration_seconds`
names the trace of a batch. Labels come from closed sets: watches, states, steps, outcomes, endpoints of the API by
their templates, HTTP codes (rare ones by their class). Series of failures stand at 0 from the start; those of an
endpoint from its first request on. Beside these there are the usual `process_` and `python_` series.

Those "of the store" are read from it at each scrape. A scrape waits for the store for two seconds; then it tells the
values of the last good reading, with `watcher_scrape_store_up` 0.

A worker serves those of its runs, deliveries, requests, loops and its store, and none of polls or of the lead; scrape
it under the job of its daemons.

| name | kind | labels | what it tells |
|--|--|--|--|
"""
_CONFIGURATION_HEAD = """# Configuration

Made from the code by `make docs-generated`; do not edit.

Everything is set by environment variables. Two underscores lead into a group; a watch has its name in between, in any
case: `WATCHER_WATCHES__GATE__BATCH__MIN_SAMPLES` belongs to the watch `gate`. A misspelt variable is refused at the
start with the nearest right one. Values that are out of range are told all at once, and so is all that does not fit
together. `watcher check-config` shows what was understood; it also opens the files that the settings name.

Secrets may lie in files: `<VARIABLE>_FILE` names one. An empty variable counts as unset. No setting, but the place for
`watcher move-store` is `WATCHER_MOVE_TO`, or what lies in the file `WATCHER_MOVE_TO_FILE`.
"""
_RULE_HEAD = """# Made from the code by `make docs-generated`; do not edit. For the Prometheus operator.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: watcher
  labels:
    app.kubernetes.io/name: datasource-watcher
spec:
"""
# Of what has no default; by the end of the path in the settings.
_EXAMPLES = {
    "upload.grey_bits": "10",
    "lightly_server_location": "https://api.example.org",
    "ca_certs": "/etc/ssl/own-authority.pem",
    "lightly_ca_certs": "/etc/ssl/own-authority.pem",
    "platform.blob_url": "s3://bucket/watcher",
    "url_base": "https://watcher.example.org",
    "s3_endpoint": "https://minio.example.org:9000",
    "gcs_endpoint": "https://storage.example.org",
    "azure_endpoint": "https://blobs.example.org",
    "sts_endpoint": "https://sts.example.org",
    "datasource_endpoints": "https://obs.example.org:443",
    "role_access_key_id": "AKIAEXAMPLE",
    "dataset": "gate",
    "folder": "cameras/gate",
    "schedule.cron": "*/10 6-22 * * *",
    "batch.cron": "0 5 * * *",
    "overlap_min_s": "120",
    "batch.max_bytes": "500000000",
    "max_running": "4",
    "metadata.source": "sidecar",
    "metadata.values": '{"camera": "{camera}", "arrived": "{arrived}"}',
    "metadata.pattern": r"(?P<camera>[^/]+)/.*",
    "metadata.command": "python describe.py",
    "metadata.json_schema": "schemas/metadata.json",
    "embed.model": "models/encoder.onnx",
    "embed.input_name": "pixel_values",
    "embed.output_name": "embedding",
    "embed.width_px": "224",
    "embed.height_px": "224",
    "embed.command": "python embed.py",
    "embed.url": "https://embedder.example.org/embed",
    "embed.version": "2",
    "embed.dim": "512",
    "sampling.min_distance": "0.2",
    "sampling.budget": "100",
    "sampling.budget_share": "0.05",
    "sampling.preselected_tags": "labelled",
    "scores.file": "scores.csv",
    "requests_per_s": "50",
    "tls_cert_file": "/run/secrets/tls.crt",
    "tls_key_file": "/run/secrets/tls.key",
    "control.host": "127.0.0.1",
    "control.port": "8090",
    "traces.endpoint": "http://collector.example.org:4318",
    "scores.metadata_key": "uncertainty",
    "scores.command": "python score.py",
    "scores.default": "0.5",
    "near_duplicate_distance": "0.1",
    "repeat_distance": "0.01",
    "min_ratio": "0.5",
    "label_studio.url": "https://labels.example.org",
    "url": "https://labels.example.org",
    "project": "Gate",
    "label_config": "labels.xml",
    "image_prefix": "s3://bucket/gate/",
}
_KINDS = {int: "whole number", float: "number", bool: "`true` or `false`", Path: "path", SecretStr: "secret"}
_COMMAND = "command, quoted as for a shell"
_EVENTS_HEAD = """# Log events

Made from the code by `make docs-generated`; do not edit.

One event a line, on standard error; JSON unless it is a terminal (`WATCHER_LOG__FORMAT`). Each has `timestamp`,
`level`, `event` and `component`. `request_id` is the `X-Request-Id` of the request that failed: the
platform logs the same. `trace_id` names the trace of a batch. Secrets and queries of URLs are taken out of every field.

| event | level | component | fields |
|--|--|--|--|
"""


def render_metrics() -> str:
    """The page of all metrics."""
    metrics = Metrics()
    rows = {
        (
            _name(family.name, family.kind),
            f"{family.kind}, of the store",
            ", ".join(family.labels),
            family.text,
        )
        for family in (*FAMILIES, UP, READ)
    }
    collectors = {*metrics.registry._collector_to_names, metrics.clock_skew_s}  # noqa: SLF001 - there is no other list
    for collector in collectors:
        kind = collector._type  # noqa: SLF001 - told nowhere else
        name = _name(collector._name, kind)  # noqa: SLF001 - told nowhere else
        labels = ", ".join(collector._labelnames)  # noqa: SLF001 - told nowhere else
        rows.add((name, kind, labels, collector._documentation))  # noqa: SLF001 - told nowhere else
    return _METRICS_HEAD + "".join(
        f"| `{name}` | {kind} | {labels} | {text} |\n" for name, kind, labels, text in sorted(rows)
    )


def _name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


@dataclass
class Event:
    """An event and what its calls say of it."""

    levels: set[str] = field(default_factory=set)
    components: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def find_events(package: Path = PACKAGE) -> dict[str, Event]:
    """Every event by its name."""
    events: dict[str, Event] = {}
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        component = next(_find_component(tree), path.stem)
        for scope in ast.walk(tree):
            if isinstance(scope, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)):
                _read_scope(scope, component, events)
    return events


def _find_component(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "get_logger"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield ast.literal_eval(node.args[0])


def _read_scope(
    scope: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, component: str, events: dict[str, Event]
) -> None:
    # `log = _log.info if ... else _log.debug`, then `log("poll.ended")`; and `log = _log.bind(watch=...)`.
    chosen: dict[str, set[str]] = {}
    bound: dict[str, set[str]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            chosen[name] = _find_levels(node.value, {})
            if isinstance(node.value, ast.Call) and getattr(node.value.func, "attr", "") == "bind":
                bound[name] = {keyword.arg for keyword in node.value.keywords if keyword.arg}
    for node in ast.walk(scope):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.args[0]
        levels = _find_levels(node.func, chosen)
        if not (levels and isinstance(name, ast.Constant) and isinstance(name.value, str)):
            continue
        if not _EVENT.fullmatch(name.value):
            continue
        event = events.setdefault(name.value, Event())
        event.levels |= levels
        event.components.add(component)
        for keyword in node.keywords:
            event.fields |= _name_fields(keyword)
        for inner in ast.walk(node.func):
            if isinstance(inner, ast.Name):
                event.fields |= bound.get(inner.id, set())


def _find_levels(node: ast.expr, chosen: dict[str, set[str]]) -> set[str]:
    if isinstance(node, ast.IfExp):
        return _find_levels(node.body, chosen) | _find_levels(node.orelse, chosen)
    if isinstance(node, ast.Name):
        return chosen.get(node.id, set())
    if isinstance(node, ast.Attribute) and node.attr in _LEVELS:
        # Only loggers: a local variable or one of the module.
        owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        return {node.attr} if owner.strip("_").endswith("log") else set()
    return set()


def _name_fields(keyword: ast.keyword) -> set[str]:
    if keyword.arg is not None:
        return {keyword.arg}
    value = keyword.value
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "describe_error":
        return set(_ERROR_FIELDS)
    return {"…"}


def render_events() -> str:
    """The page of all log events."""
    return _EVENTS_HEAD + "".join(
        f"| `{name}` | {', '.join(sorted(event.levels, key=_LEVELS.index))} | {', '.join(sorted(event.components))} "
        f"| {', '.join(sorted(event.fields))} |\n"
        for name, event in sorted(find_events().items())
    )


def render_configuration() -> str:
    """The page of all variables, a table a group."""
    groups: dict[str, list[str]] = {}
    for variable in iter_variables(Settings):
        row = " | ".join(
            (
                f"`{variable.name}`" + (", or `_FILE`" if variable.is_secret else ""),
                describe_type(variable),
                _describe_default(variable),
                f"`{'_FILE=' if variable.is_secret else ''}{build_example(variable)}`".replace("|", "\\|"),
                (variable.field.description or "").replace("|", "\\|"),
            )
        )
        groups.setdefault(_name_group(variable), []).append(f"| {row} |\n")
    return _CONFIGURATION_HEAD + "".join(
        f"\n## {title}\n\n| variable | type | default | example | meaning |\n|--|--|--|--|--|\n{''.join(rows)}"
        for title, rows in groups.items()
    )


def _name_group(variable: Variable) -> str:
    if len(variable.path) == 1:
        return "The daemon"
    if variable.path[0] != "watches":
        return variable.path[0].replace("_", " ").capitalize()
    inner = variable.path[2:-1]
    return "A watch" if not inner else f"A watch: {inner[0].replace('_', ' ')}"


def describe_type(variable: Variable) -> str:
    """What a value may be: a kind with its bounds, or the words that are known."""
    annotation = variable.field.annotation
    kinds = [kind for kind in typing.get_args(annotation) or (annotation,) if kind is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{word}`" for word in kinds)
    if variable.path[-1] == "command":
        return _COMMAND
    if typing.get_origin(annotation) is tuple:
        return "list, by commas"
    kind = kinds[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{word}`" for word in kind)
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in variable.field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(rule, name, None) is not None
    ]
    named = _KINDS.get(kind, "text")
    return f"{named} {' and '.join(bounds)}" if bounds else named


def _describe_default(variable: Variable) -> str:
    value = variable.field.default
    return "-" if value is None or value == () else f"`{_write(value)}`"


def build_example(variable: Variable) -> str:
    """A value that is understood; of a secret the file where it may lie."""
    if variable.is_secret:
        return f"/run/secrets/{variable.path[-1]}"
    for length in (2, 1):
        if (known := _EXAMPLES.get(".".join(variable.path[-length:]))) is not None:
            return known
    return _write(variable.field.default)


def _write(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def render_prometheus_rule() -> str:
    """The alert rules as the Prometheus operator of a cluster takes them."""
    rules = render_alerts(
        objective_s=AlertSettings().freshness_objective_s, runbook_url=AlertSettings().runbook_url
    )
    return _RULE_HEAD + "".join(f"  {line}\n" if line else "\n" for line in rules.splitlines())


PAGES = {
    "metrics.md": render_metrics,
    "events.md": render_events,
    "configuration.md": render_configuration,
    "../deploy/kubernetes/base/prometheusrule.yaml": render_prometheus_rule,
}


def main() -> int:
    """Writes every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
