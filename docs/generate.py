"""Writes the pages that follow from the code: `python docs/generate.py` (`make docs-generated`); a test compares them.

`metrics.md` lists what a registry of the daemon holds; `events.md` what the calls of loggers say, read from the source.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watcher.metrics import Metrics
from watcher.ops.collector import READ, UP
from watcher.ops.states import FAMILIES

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

| name | kind | labels | what it tells |
|--|--|--|--|
"""
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
        kind = collector._type  # type: ignore[attr-defined]  # noqa: SLF001
        name = _name(collector._name, kind)  # type: ignore[attr-defined]  # noqa: SLF001
        labels = ", ".join(collector._labelnames)  # type: ignore[attr-defined]  # noqa: SLF001
        rows.add((name, kind, labels, collector._documentation))  # type: ignore[attr-defined]  # noqa: SLF001
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


PAGES = {"metrics.md": render_metrics, "events.md": render_events}


def main() -> int:
    """Writes every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
