"""Commands that look ahead and hand out: plan, export."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from watcher import bootstrap
from watcher.attach import find_own_output
from watcher.cli.frame import JsonOption, app, err, load, out, reporting
from watcher.cli.progress import showing
from watcher.daemon import Daemon
from watcher.database.engine import Database
from watcher.domain.errors import ConfigError, StoreLockedError
from watcher.domain.models import WatchConfig
from watcher.exporting import export_tag
from watcher.lightly.transport import Transport
from watcher.planning import Plan, plan_watch
from watcher.settings.root import Settings

_NO_PLATFORM = "there is no platform yet: the first `watcher run` or `watcher poll` makes it"


class ExportFormat(StrEnum):
    """What an export holds."""

    FILENAMES = "filenames"
    FILENAMES_AND_READ_URLS = "filenames-and-read-urls"


@app.command()
def plan(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """What the next poll and its batches would do and cost; nothing is done."""
    with reporting():
        settings = load(quiet=True)
        daemon = Daemon(settings)
        configs = [config for config in daemon.configs if watch in (None, config.name)]
        if not configs:
            known = ", ".join(config.name for config in daemon.configs)
            raise ConfigError(f"there is no watch {watch!r}; configured are: {known}")
        now_ms = int(time.time() * 1000)
        if not bootstrap.has_store(settings):
            plans = _plan_first_run(settings, configs, now_ms, known=daemon.configs)
        else:
            try:
                daemon.open()
            except StoreLockedError:
                plans = _plan_beside_daemon(settings, configs, now_ms, known=daemon.configs)
            else:
                try:
                    plans = _plan_each(*daemon.lend(), configs, now_ms, known=daemon.configs)
                finally:
                    daemon.stop()
        if as_json:
            sys.stdout.write(msgspec.json.encode(plans).decode() + "\n")
        else:
            for made in plans:
                _print_plan(out, made)


def _plan_each(
    database: Database | None,
    transport: Transport,
    configs: list[WatchConfig],
    now_ms: int,
    *,
    known: Sequence[WatchConfig],
) -> list[Plan]:
    """Plans some of the known watches."""
    with showing("listing", console=err):
        return [
            plan_watch(
                database,
                config=config,
                transport=transport,
                now_ms=now_ms,
                find_own_output=lambda dataset_id: find_own_output(
                    transport, dataset_id=dataset_id, configs=known
                ),
            )
            for config in configs
        ]


def _plan_beside_daemon(
    settings: Settings, configs: list[WatchConfig], now_ms: int, *, known: Sequence[WatchConfig]
) -> list[Plan]:
    database = bootstrap.open_existing_store(settings)
    transport = bootstrap.build_command_transport(settings, database=database)
    try:
        return _plan_each(database, transport, configs, now_ms, known=known)
    finally:
        transport.close()
        database.close()


def _plan_first_run(
    settings: Settings, configs: list[WatchConfig], now_ms: int, *, known: Sequence[WatchConfig]
) -> list[Plan]:
    """Before there is a store: another server is asked; the platform inside is there from the first run on."""
    if settings.is_embedded:
        return [
            plan_watch(None, config=config, transport=None, now_ms=now_ms, why_not_listed=_NO_PLATFORM)
            for config in configs
        ]
    transport = bootstrap.build_command_transport(settings, database=None)
    try:
        return _plan_each(None, transport, configs, now_ms, known=known)
    finally:
        transport.close()


def _print_plan(console: Console, made: Plan) -> None:
    console.print(Text(made.watch, style="bold"))
    if made.is_paused:
        console.print(Text("  paused: nothing of this happens before `watcher resume`", style="yellow"))
    new = (
        f"new files unknown: {made.listing}"
        if made.n_new is None
        else f"{made.n_new} new files, {made.n_pages} requests"
    )
    console.print(Text(f"  next poll: {new}"))
    console.print(Text(f"  waiting in the ledger: {made.n_waiting}; open batches: {made.n_open_batches}"))
    if made.batch_sizes is None:
        console.print(Text("  batches: unknown"))
    elif made.batch_sizes:
        when = "at once" if made.is_due else "once enough wait, for long enough or by cron"
        sizes = ", ".join(str(size) for size in made.batch_sizes[:10])
        more = f" and {len(made.batch_sizes) - 10} more" if len(made.batch_sizes) > 10 else ""
        console.print(Text(f"  batches, {when}: {sizes}{more} samples"))
        read = "unknown" if made.n_bytes is None else f"{made.n_bytes / 1e6:.1f} MB"
        console.print(Text(f"  bytes to read: {read} ({made.bytes_are})"))
    if made.n_left:
        console.print(Text(f"  left for later batches: {made.n_left}"))
    for step in made.steps:
        about = "requests unknown" if step.n_requests is None else f"about {step.n_requests} requests"
        console.print(Text(f"  step {step.step}: {about}"))
    spent = f", of which {made.n_spent} are taken" if made.n_spent else ""
    budget = f" (budget {made.budget}{spent})" if made.budget else ""
    picks = "unknown" if made.n_picks is None else f"at most {made.n_picks}"
    console.print(Text(f"  picks: {picks}{budget}"))
    for delivery in made.deliveries:
        told = (
            "unknown"
            if delivery.n_deliveries is None
            else f"{delivery.n_deliveries} deliveries, at most {delivery.n_picks} picks, about "
            f"{delivery.n_requests} requests"
        )
        console.print(Text(f"  to {delivery.sink} ({delivery.kind}): {told}"))
    if made.n_unconfirmed:
        console.print(Text(f"  deliveries not confirmed yet: {made.n_unconfirmed}", style="yellow"))


@app.command()
def export(
    tag: Annotated[str, typer.Argument(help="Name of the tag.")],
    *,
    watch: Annotated[
        str | None, typer.Option("--watch", "-w", help="Whose dataset; needed for several.")
    ] = None,
    form: Annotated[
        ExportFormat, typer.Option("--format", help="Names a line each, or JSON with addresses.")
    ] = ExportFormat.FILENAMES,
    to: Annotated[Path | None, typer.Option("--to", help="File to write; else standard output.")] = None,
) -> None:
    """Hand out the samples of a tag: file names, or file names with read URLs that do not expire."""
    with reporting():
        settings = load(quiet=True)
        daemon = Daemon(settings)
        names = [config.name for config in daemon.configs]
        if watch is None and len(names) > 1:
            raise ConfigError(
                f"there are several watches: name one by --watch; configured are: {', '.join(names)}"
            )
        chosen = next((c for c in daemon.configs if watch in (None, c.name)), None)
        if chosen is None:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(names)}")
        with_urls = form is ExportFormat.FILENAMES_AND_READ_URLS
        try:
            daemon.open()
        except StoreLockedError:
            database = bootstrap.open_existing_store(settings)
            transport = bootstrap.build_command_transport(settings, database=database)
            try:
                with showing("exporting", console=err):
                    body = export_tag(transport, dataset=chosen.dataset, tag=tag, with_read_urls=with_urls)
            finally:
                transport.close()
                database.close()
        else:
            try:
                with showing("exporting", console=err):
                    _, transport = daemon.lend()
                    body = export_tag(transport, dataset=chosen.dataset, tag=tag, with_read_urls=with_urls)
            finally:
                daemon.stop()
        if to is None:
            sys.stdout.write(body)
        else:
            try:
                to.write_text(body, encoding="utf-8")
            except OSError as error:
                raise ConfigError(
                    f"--to {to} cannot be written ({error.strerror}): name a file in a folder that this user may write"
                ) from None
