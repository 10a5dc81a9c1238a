"""Commands that change something: poll, audit, pause, resume, rewind, dead, replay, drop.

Beside a running daemon they ask it through its control API; without one they take the store's lock and do the work
themselves.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
import typer

from watcher import bootstrap
from watcher.cli.beside import have_done, tell_actor
from watcher.cli.frame import JsonOption, app, err, load, out, reporting
from watcher.cli.progress import build_sample_count, showing
from watcher.cli.views import print_dead, print_log, print_reconcile
from watcher.daemon import Daemon
from watcher.database.engine import Database
from watcher.domain.errors import ConfigError, StoreLockedError, WatcherError
from watcher.domain.models import Poll
from watcher.domain.redaction import redact
from watcher.moving import refuse_moved
from watcher.ops.changes import Wanted, find_watch, make_change, name_actor
from watcher.ops.control import Control
from watcher.ops.tokens import LOCAL
from watcher.settings.root import Settings
from watcher.store import deliveries, polls, reconciles, runs, watches
from watcher.store.control import load_audit_log
from watcher.store.duty_problems import Duty
from watcher.store.lock import FileLock
from watcher.store.reconciles import ReconcileReport
from watcher.store.troubled import load_troubled

_POLL_WAIT_S = 300.0
_AUDIT_WAIT_S = 3600.0
_LOOK_AGAIN_S = 0.1
_MOST_DEAD = 1000

T = TypeVar("T")
WatchArgument = Annotated[str, typer.Argument(help="Name of the watch.")]


@app.command()
def poll(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    jobs: Annotated[bool, typer.Option(help="Then run what is ready, until nothing is.")] = True,
) -> None:
    """Poll once, in the foreground; a running daemon is asked to do it. What is paused is left out, unless named."""
    with reporting():
        settings = load(quiet=True)
        daemon = Daemon(settings)
        names = [config.name for config in daemon.configs]
        if watch is not None and watch not in names:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(names)}")
        chosen = names if watch is None else [watch]
        try:
            daemon.open()
        except StoreLockedError:
            _poll_beside_daemon(settings, chosen, named=watch is not None)
            return

        def poll_one(name: str) -> str:
            with showing(f"polling {name}", console=err):
                report = daemon.poll(name)
            return f"{report.n_listed} listed, {report.n_new} new, mark {report.to_s}"

        try:
            database, _ = daemon.lend()
            failures = _poll_each(chosen if watch else _leave_out_paused(database, chosen), poll_one)
            if jobs:
                with showing("samples", console=err, count=build_sample_count(daemon.lend()[0])):
                    n_attempts = daemon.run_ready()
                out.print(f"{n_attempts} attempts of runs and deliveries")
        finally:
            daemon.stop()
        _exit_for(failures)


def _poll_each(names: list[str], poll_one: Callable[[str], str]) -> list[WatcherError]:
    """Polls one watch after the other; none keeps the next one from its turn."""
    failures: list[WatcherError] = []
    for name in names:
        try:
            told = poll_one(name)
        except WatcherError as error:
            err.print(f"watcher: {name}: {redact(str(error))}", markup=False)
            failures.append(error)
        else:
            out.print(f"{name}: {told}", markup=False)
    return failures


def _exit_for(failures: list[WatcherError]) -> None:
    """Ends with 2 if a person must change something, with 1 if anything else failed."""
    if failures:
        raise typer.Exit(2 if any(isinstance(error, ConfigError) for error in failures) else 1)


def _leave_out_paused(database: Database, names: list[str]) -> list[str]:
    with database.read() as session:
        paused = {row.name for row in watches.load_watches(session) if row.paused_ms is not None}
    for name in names:
        if name in paused:
            out.print(f"{name}: paused, so it is not polled", markup=False)
    return [name for name in names if name not in paused]


def _poll_beside_daemon(settings: Settings, names: list[str], *, named: bool) -> None:
    database = bootstrap.open_store(settings)

    def poll_one(name: str) -> str:
        before = _load_last_poll(database, name)
        with showing(f"waiting for a poll of {name}", console=err):
            have_done(settings, database, watch=name, duty=Duty.POLL, limit_s=_POLL_WAIT_S)
        done = _load_last_poll(database, name)
        if done is None or done == before:  # an interrupted one goes on under the id it had
            raise WatcherError("it was let be: paused by now, or not configured where the leader runs")
        return f"{done.n_listed} listed, {done.n_new} new, mark {done.to_s} (by the daemon)"

    try:
        failures = _poll_each(names if named else _leave_out_paused(database, names), poll_one)
    finally:
        database.close()
    _exit_for(failures)


def _load_last_poll(database: Database, name: str) -> Poll | None:
    with database.read() as session:
        row = watches.load_watch(session, name=name)
        recent = [] if row is None else polls.load_recent_polls(session, watch_id=row.id, limit=1)[row.id]
    return recent[0] if recent else None


@app.command()
def audit(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare datasource, ledger and dataset in full; exit 0 only if nothing was missing and all is explained."""
    with reporting():
        settings = load(quiet=True)
        daemon = Daemon(settings)
        names = [config.name for config in daemon.configs]
        if watch is not None and watch not in names:
            raise ConfigError(f"there is no watch {watch!r}; configured are: {', '.join(names)}")
        chosen = names if watch is None else [watch]
        try:
            daemon.open()
        except StoreLockedError:
            reports, failures = _audit_each(chosen, lambda name: _audit_beside_daemon(settings, name))
        else:
            try:
                with showing("comparing", console=err):
                    reports, failures = _audit_each(chosen, daemon.reconcile)
            finally:
                daemon.stop()
        _print_reports(settings, reports, as_json=as_json)
        _exit_for(failures)
        if not all(report.is_clean for report in reports):
            raise typer.Exit(1)


def _audit_each(
    names: list[str], audit_one: Callable[[str], ReconcileReport]
) -> tuple[list[ReconcileReport], list[WatcherError]]:
    """Compares one watch after the other; none keeps the next one from its turn."""
    reports: list[ReconcileReport] = []
    failures: list[WatcherError] = []
    for name in names:
        try:
            reports.append(audit_one(name))
        except WatcherError as error:
            err.print(f"watcher: {name}: {redact(str(error))}", markup=False)
            failures.append(error)
    return reports, failures


def _print_reports(settings: Settings, reports: list[ReconcileReport], *, as_json: bool) -> None:
    """Names every sample that nothing explains; a report alone holds the first thousand."""
    if all(report.n_unexplained == len(report.unexplained) for report in reports):
        if as_json:
            sys.stdout.write(msgspec.json.encode(reports).decode() + "\n")
        for report in () if as_json else reports:
            print_reconcile(out, report)
        return
    database = bootstrap.open_existing_store(settings)
    try:
        with database.read() as session:
            if as_json:
                whole = [
                    msgspec.structs.replace(
                        report,
                        unexplained=dict(reconciles.iter_unexplained(session, watch=report.watch)),
                    )
                    for report in reports
                ]
                sys.stdout.write(msgspec.json.encode(whole).decode() + "\n")
            for report in () if as_json else reports:
                print_reconcile(out, report, reconciles.iter_unexplained(session, watch=report.watch))
    finally:
        database.close()


def _audit_beside_daemon(settings: Settings, name: str) -> ReconcileReport:
    database = bootstrap.open_store(settings)

    def load_last() -> tuple[int, ReconcileReport] | None:
        with database.read() as session:
            row = watches.load_watch(session, name=name)
            return None if row is None else reconciles.load_last_report(session, watch_id=row.id)

    try:
        before = load_last()
        with showing(f"waiting for a comparison of {name}", console=err):
            have_done(settings, database, watch=name, duty=Duty.AUDIT, limit_s=_AUDIT_WAIT_S)
        last = load_last()
        if last is None or last[0] == (before[0] if before else 0):
            raise WatcherError("it was let be: not configured where the leader runs")
        return last[1]
    finally:
        database.close()


@app.command()
def pause(watch: WatchArgument) -> None:
    """Stop polling a watch and start no more of its runs, until `resume`."""
    _change(watch, "pause")


@app.command()
def resume(watch: WatchArgument) -> None:
    """Let a paused watch go on."""
    _change(watch, "resume")


@app.command()
def rewind(
    watch: WatchArgument,
    *,
    to: Annotated[str, typer.Option("--to", help="Unix seconds, or a time such as 2026-11-23T08:00:00Z.")],
) -> None:
    """Set the mark back, so that everything after that time is listed again; nothing is processed twice."""
    with reporting():
        to_s = _parse_time(to)
    _change(watch, "rewind", Wanted(to_s=to_s))


@app.command()
def replay(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    delivery: Annotated[
        str | None,
        typer.Option(help="Only this delivery, BATCH/SINK or BATCH; a confirmed one is made again."),
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Only this file, by its whole name: set aside, vanished, or held up.")
    ] = None,
) -> None:
    """Resubmit dead runs, dead deliveries, quarantined samples and vanished ones."""
    with reporting():
        for option, value in (("delivery", delivery), ("file", file)):
            if value is not None and watch is None:
                raise ConfigError(
                    f"whose {option} is {value!r}? Write `watcher replay WATCH --{option} {shlex.quote(value)}`"
                )
        names = (
            [config.name for config in load(quiet=True).build_watch_configs()] if watch is None else [watch]
        )
    codes = []
    for name in names:  # trouble with one watch keeps no other from its chance
        try:
            _change(name, "replay", Wanted(delivery=delivery, file=file))
        except typer.Exit as ended:
            codes.append(ended.exit_code)
    if codes:
        raise typer.Exit(max(codes))


@app.command()
def drop(
    watch: WatchArgument,
    *,
    delivery: Annotated[str | None, typer.Option(help="This delivery, BATCH/SINK or BATCH.")] = None,
    sink: Annotated[str | None, typer.Option(help="All to this sink, be it configured or not.")] = None,
) -> None:
    """Let dead deliveries be, such as those to a receiver that is gone; `replay --delivery` takes one up again."""
    _change(watch, "drop", Wanted(delivery=delivery, sink=sink))


@app.command()
def dead(*, as_json: JsonOption = False) -> None:
    """List dead runs and deliveries, quarantined samples and vanished ones, with their reasons."""
    with reporting():
        database = bootstrap.open_existing_store(load(quiet=True))
        try:
            with database.read() as session:
                dead_runs = runs.load_dead_runs(session, limit=_MOST_DEAD)
                dead_deliveries = deliveries.load_dead_deliveries(session, limit=_MOST_DEAD)
                found = load_troubled(session, limit=_MOST_DEAD)
                troubled = [
                    (row.name, sample) for row in watches.load_watches(session) for sample in found[row.id]
                ]
        finally:
            database.close()
        print_dead(out, dead_runs, dead_deliveries, troubled, as_json=as_json)
        if max(len(dead_runs), len(dead_deliveries), *map(len, found.values()), 0) >= _MOST_DEAD:
            err.print(f"Only the newest {_MOST_DEAD} of a kind are listed, of samples those of each watch.")


@app.command("log")
def show_log(
    watch: Annotated[str | None, typer.Argument(help="Only this watch.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most entries, from the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The audit log, newest first: who changed what, and when."""
    with reporting():
        database = bootstrap.open_existing_store(load(quiet=True))
        try:
            with database.read() as session:
                row = None if watch is None else find_watch(session, watch)
                entries = load_audit_log(session, watch=row, limit=limit)
        finally:
            database.close()
        if as_json:
            sys.stdout.write(msgspec.json.encode(entries).decode() + "\n")
        else:
            print_log(out, entries)


def _change(watch: str, verb: str, wanted: Wanted | None = None) -> None:
    wanted = wanted or Wanted()
    with reporting():
        settings = load(quiet=True)
        database = bootstrap.open_existing_store(settings, warns=False)
        # On Postgres anyone may write a change; an SQLite file belongs to its daemon, which is asked to do it.
        lock = FileLock(database) if database.is_sqlite else None
        try:
            refuse_moved(database)
            if lock is not None:
                lock.acquire()
            done, _ = make_change(
                database,
                watch=watch,
                verb=verb,
                wanted=wanted,
                actor=name_actor(LOCAL, tell_actor()),
                now_ms=int(time.time() * 1000),
            )
        except StoreLockedError:
            control = Control.read(settings.data_dir)
            done = control.request(watch, verb, actor=tell_actor(), wanted=wanted)
        finally:
            if lock is not None:
                lock.release()
            database.close()
        out.print(f"{watch}: {done}", markup=False)


def _parse_time(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time: write unix seconds, or such as 2026-11-23T08:00:00Z"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
