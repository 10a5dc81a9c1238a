"""How the commands show what they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from watcher.domain.delivery import Delivery, LabelStudioRules, ManifestRules, SinkConfig
from watcher.domain.models import Run, Sample, Step, WatchConfig
from watcher.domain.redaction import redact
from watcher.domain.visible import make_visible
from watcher.ops.life import Life
from watcher.ops.overview import Overview, WatchView
from watcher.scheduler import build_trigger
from watcher.settings.root import Settings
from watcher.settings.variables import iter_variables
from watcher.sinks.place import describe_place
from watcher.store.control import AuditEntry
from watcher.store.reconciles import ReconcileReport

_STYLES = {
    "done": "green",
    "open": "blue",
    "running": "blue",
    "dead": "red",
    "failed": "red",
    "quarantined": "red",
}


def print_overview(console: Console, overview: Overview) -> None:
    """The state of every watch."""
    if not overview.watches and not overview.unreached:
        console.print("No watch has reached its server yet; the log of `watcher run` tells why.")
    for name, problem in overview.unreached.items():
        console.print(Text(name, style="bold"))
        console.print(Text(f"  has not reached its server yet: {problem}", style="red"))
    for watch in overview.watches:
        _print_watch(console, watch, now_ms=overview.now_ms)


def _print_watch(console: Console, watch: WatchView, *, now_ms: int) -> None:
    console.print(Text(watch.name, style="bold"))
    if watch.paused_ms is not None:
        console.print(Text(f"  paused since {_moment(watch.paused_ms / 1000)}", style="yellow"))
    facts = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 2))
    facts.add_row("mark", _moment(watch.mark_s))
    facts.add_row("lag", "-" if watch.lag_s is None else f"{watch.lag_s:.0f} s")
    facts.add_row("last poll", _moment(None if watch.last_polled_ms is None else watch.last_polled_ms / 1000))
    facts.add_row("overlap", "-" if watch.overlap_s is None else f"{watch.overlap_s} s")
    facts.add_row("listing", watch.listing or "not probed yet; taken as documented")
    pending = watch.oldest_pending_ms
    facts.add_row(
        "oldest unfinished", "none" if pending is None else f"{(now_ms - pending) / 1000:.0f} s old"
    )
    facts.add_row("samples", ", ".join(f"{n} {state}" for state, n in watch.samples.items()))
    console.print(facts)
    if watch.batches:
        table = Table(
            "batch",
            "samples",
            "novelty",
            "state",
            "steps",
            "delivered to",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 2),
        )
        for batch in watch.batches:
            steps = " ".join(
                f"{run.step}:{run.state}"
                + (f"({run.n_shards_done}/{run.n_shards})" if run.n_shards and run.state != "done" else "")
                for run in batch.runs
            )
            state = Text(batch.state, style=_STYLES.get(batch.state, ""))
            new = "-" if batch.novelty is None else f"{batch.novelty:.2f}"
            places = [f"{d.sink}: {d.location}" for d in batch.deliveries if d.location is not None]
            table.add_row(
                batch.key,
                str(batch.n_samples),
                new,
                state,
                Text(steps),
                Text(make_visible(", ".join(places))),
            )
        console.print(table)
    if watch.problem:
        console.print(Text(f"  last poll: {watch.problem}", style="red"))
    if watch.audit_problem:
        console.print(Text(f"  last audit: {watch.audit_problem}", style="red"))
    for batch in watch.batches:
        for run in batch.runs:
            if run.error:
                console.print(Text(f"  {batch.key} {run.step}: {run.error}", style="red"))
        for delivery in batch.deliveries:
            if delivery.state not in {"done", "dropped"}:
                told = f"  {batch.key}/{delivery.sink} {delivery.state}, attempt {delivery.attempt}"
                console.print(Text(f"{told}: {delivery.error}" if delivery.error else told, style="yellow"))
    for sample in watch.troubled:
        console.print(Text(f"  {sample.state} {sample.file_name}: {sample.reason or ''}", style="red"))
    if watch.n_more_troubled:
        console.print(
            Text(f"  and {watch.n_more_troubled} more set aside; `watcher dead` lists them", style="red")
        )
    for poll in watch.polls[:1]:
        if poll.error:
            console.print(Text(f"  last poll: {poll.error}", style="red"))


def print_reconcile(
    console: Console, report: ReconcileReport, unexplained: Iterable[tuple[str, str]] | None = None
) -> None:
    """A full comparison: the sum, then every name that is not in order; `unexplained` gives more than the report."""
    verdict = Text("clean", style="green") if report.is_clean else Text("NOT CLEAN", style="red")
    console.print(Text.assemble((report.watch, "bold"), "  ", verdict))
    ledger = " + ".join(f"{n} {state}" for state, n in report.samples.items())
    console.print(Text(f"  listed {report.n_listed}, ledger {sum(report.samples.values())} = {ledger}"))
    if report.listed:
        became = " + ".join(f"{n} {state}" for state, n in report.listed.items())
        console.print(Text(f"  listed {report.n_listed} = {became}"))
    console.print(Text(f"  the dataset has {report.n_remote}; compared up to {_moment(report.to_s)}"))
    if report.n_no_longer_listed:
        console.print(Text(f"  {report.n_no_longer_listed} processed ones are no longer in the datasource"))
    for label, n, names in (
        ("missing: listed, but found by no poll; now in the ledger", report.n_missing, report.missing),
        (
            "unexplained",
            report.n_unexplained,
            (f"{name}: {fault}" for name, fault in unexplained or report.unexplained.items()),
        ),
        ("in the kept counts of states were wrong; they are right now", report.n_miscounted, []),
    ):
        if n:
            console.print(Text(f"  {n} {label}", style="red"))
            for name in names:
                console.print(Text(f"    {name}"))


def print_dead(
    console: Console,
    dead_runs: list[tuple[str, Run]],
    dead_deliveries: list[tuple[str, str, Delivery]],
    troubled: list[tuple[str, Sample]],
    *,
    as_json: bool,
) -> None:
    """What was given up, a line each; `watcher replay` gives it another chance."""
    rows = [
        {
            "watch": watch,
            "what": _name_run(run),
            "state": "dead",
            "reason": run.error or "",
        }
        for watch, run in dead_runs
    ]
    rows += [
        {
            "watch": watch,
            "what": f"delivery {batch}/{delivery.sink}",
            "state": "dead",
            "reason": delivery.error or "",
        }
        for watch, batch, delivery in dead_deliveries
    ]
    rows += [
        {"watch": watch, "what": sample.file_name, "state": sample.state.value, "reason": sample.reason or ""}
        for watch, sample in troubled
    ]
    if as_json:
        console.file.write(msgspec.json.encode(rows).decode() + "\n")
        return
    table = Table("watch", "what", "state", "reason", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(make_visible(row[name])) for name in ("watch", "what", "state", "reason")))
    console.print(table if rows else "Nothing was given up.")


def _name_run(run: Run) -> str:
    return f"run {run.id} {run.step}" + (f" shard {run.shard}" if run.shard else "")


def print_log(console: Console, entries: list[AuditEntry]) -> None:
    """The audit log, a line an entry."""
    table = Table("when", "who", "what", "watch", "facts", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for entry in entries:
        facts = ", ".join(f"{name} {value}" for name, value in entry.facts.items())
        told = (_moment(entry.at_ms / 1000), entry.actor, entry.verb, entry.watch, facts)
        table.add_row(*(Text(make_visible(part)) for part in told))
    console.print(table if entries else "Nobody has changed anything.")


def print_lives(console: Console, lives: list[Life]) -> None:
    """The lives of files, a line an event."""
    for life in lives:
        console.print(Text(f"{life.file_name}  (watch {life.watch})", style="bold"))
        console.print(Text(f"  {life.state}: {life.explanation}", style=_STYLES.get(life.state, "")))
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 2))
        for event in life.events:
            facts = ", ".join(f"{key} {value}" for key, value in event.facts.items() if value is not None)
            table.add_row(_moment(event.at_ms / 1000), event.what, Text(make_visible(facts)))
        console.print(table)


def print_settings(
    console: Console, settings: Settings, configs: list[WatchConfig], environ: Mapping[str, str]
) -> None:
    """What was understood: the settings that are not their defaults are marked, then the watches."""
    table = Table("variable", "value", "from", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for variable in iter_variables(Settings):
        if "<NAME>" in variable.name:
            continue
        value = _read(settings, variable.path)
        source = (
            f"{variable.name}_FILE"
            if f"{variable.name}_FILE" in environ
            else "environment"
            if environ.get(variable.name)
            else "default"
        )
        table.add_row(variable.name, Text(_show(value)), source)
    console.print(table)
    server = (
        "the embedded platform" if settings.is_embedded else redact(str(settings.lightly_server_location))
    )
    console.print(Text(f"\n{len(configs)} watch(es) at {server}:"))
    for config in configs:
        when = f"cron {config.cron}" if config.cron else f"every {config.interval_s:g} s"
        following = build_trigger(config).get_next_fire_time(None, datetime.now(UTC))
        console.print(
            Text(
                f"  {config.name}: dataset {config.dataset}, {when} (next {following:%Y-%m-%d %H:%M:%S} UTC)"
            )
        )
        if config.folder is not None:
            console.print(Text(f"    folder {settings.data_dir / config.folder}"))
        console.print(Text(f"    steps {' -> '.join(config.steps)}"))
        for group in (config.poll, config.batch, config.upload, config.sampling, config.novelty):
            facts = ", ".join(f"{name}={getattr(group, name)}" for name in type(group).__dataclass_fields__)
            console.print(Text(f"    {type(group).__name__.removesuffix('Rules').lower()}: {facts}"))
        for sink in config.deliver.sinks if Step.DELIVER in config.steps else ():
            console.print(Text(f"    sink {sink.name}: {sink.kind} {_show_sink(sink)}"))


def _show_sink(sink: SinkConfig) -> str:
    """Where to and how, without secrets; of addresses only the host, since the rest is often one."""
    rules = sink.rules
    if isinstance(rules, ManifestRules):
        return f"{rules.location} ({rules.format})"
    if isinstance(rules, LabelStudioRules):
        return f"{describe_place(rules.url)}, project {rules.project}, image {rules.image}"
    return f"{describe_place(rules.url)}, key {rules.key_id}"


def print_variables(console: Console, model: type[BaseModel]) -> None:
    """Every variable with its default and meaning."""
    table = Table("variable", "default", "meaning", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for variable in iter_variables(model):
        meaning = variable.field.description or ""
        if variable.is_secret:
            meaning += f" (or in a file named by {variable.name}_FILE)"
        table.add_row(variable.name, Text(_show(variable.field.default)), Text(meaning))
    console.print(table)


def _read(settings: Settings, path: tuple[str, ...]) -> object:
    value: object = settings
    for part in path:
        value = getattr(value, part)
    return value


def _show(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return redact(str(value))


def _moment(seconds: float | None) -> str:
    return (
        "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )
