"""Commands on the store as a whole: move it to another database, name the rows that are broken."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import msgspec
import typer

from watcher import bootstrap
from watcher.cli.frame import JsonOption, app, load, out, reporting
from watcher.database.engine import build_database
from watcher.domain.errors import ConfigError
from watcher.moving import move_store, take_back
from watcher.settings.root import Settings
from watcher.settings.variables import MOVE_TO, read_secret
from watcher.store.checks import iter_faults


@app.command("move-store")
def move(
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            envvar=MOVE_TO,
            show_envvar=False,
            help="Where to: postgresql://... or sqlite:///FILE. A URL with a password is hidden from other users of "
            f"the machine in {MOVE_TO}, or in the file that {MOVE_TO}_FILE names.",
        ),
    ] = None,
    back: Annotated[
        bool, typer.Option("--take-back", help="Work on this store again, though it was moved.")
    ] = False,
) -> None:
    """Move the store to another database; an interrupted move goes on where it was, and nothing is ingested again."""
    with reporting():
        settings = load(quiet=True)
        now_ms = int(time.time() * 1000)
        if back:
            _take_back(settings, now_ms=now_ms)
            return
        target = build_database(_find_target(to))
        source = bootstrap.open_existing_store(settings, warns=False)
        try:
            moved = move_store(
                source, target, now_ms=now_ms, say=lambda line: out.print(f"  {line}", markup=False)
            )
        finally:
            target.close()
            source.close()
        n_rows = sum(table.n_rows for table in moved)
        out.print(
            f"{n_rows} rows moved, counts and sums are equal. Now set WATCHER_STORE__URL to the new place."
        )


def _find_target(to: str | None) -> str:
    path = os.environ.get(f"{MOVE_TO}_FILE")
    if to and path:
        raise ConfigError(f"both --to (or {MOVE_TO}) and {MOVE_TO}_FILE are set: leave one of them out")
    target = read_secret(f"{MOVE_TO}_FILE", path) if path else to
    if not target:
        raise ConfigError(f"where to? Name it with --to, {MOVE_TO} or {MOVE_TO}_FILE")
    return target


def _take_back(settings: Settings, *, now_ms: int) -> None:
    database = bootstrap.open_existing_store(settings, warns=False)
    try:
        place = take_back(database, now_ms=now_ms)
    finally:
        database.close()
    out.print(
        f"This store may be worked on again. See to it that nothing works on {place} any more.", markup=False
    )


@app.command("check-store")
def check_store(*, as_json: JsonOption = False) -> None:
    """Name every row of the store that breaks a rule; exit 0 only if none does. Reads, and changes nothing."""
    with reporting():
        database = bootstrap.open_existing_store(load(quiet=True))
        n_faults = 0
        try:
            with database.read() as session:
                for fault in iter_faults(session):
                    n_faults += 1
                    if as_json:
                        sys.stdout.write(f"{msgspec.json.encode(fault).decode()}\n")
                    else:
                        out.print(f"{fault.table} {fault.id}: {fault.what}", markup=False)
        finally:
            database.close()
        if not as_json:
            out.print(f"{n_faults} broken rows" if n_faults else "No row of the store is broken.")
        if n_faults:
            raise typer.Exit(1)
