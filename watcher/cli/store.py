"""Commands on the store as a whole: move it to another database, name the rows that are broken."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import msgspec
import typer

from watcher import bootstrap
from watcher.cli.frame import JsonOption, app, load, out, reporting
from watcher.database.engine import build_database
from watcher.moving import move_store
from watcher.store.checks import iter_faults


@app.command("move-store")
def move(
    *,
    to: Annotated[
        str,
        typer.Option("--to", envvar="WATCHER_MOVE_TO", help="Where to: postgresql://... or sqlite:///FILE."),
    ],
) -> None:
    """Move the store to another database; an interrupted move goes on where it was, and nothing is ingested again."""
    with reporting():
        settings = load(quiet=True)
        source = bootstrap.open_existing_store(settings)
        target = build_database(to)
        try:
            moved = move_store(
                source,
                target,
                now_ms=int(time.time() * 1000),
                say=lambda line: out.print(f"  {line}", markup=False),
            )
        finally:
            target.close()
            source.close()
        n_rows = sum(table.n_rows for table in moved)
        out.print(
            f"{n_rows} rows moved, counts and sums are equal. Now set WATCHER_STORE__URL to the new place."
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
