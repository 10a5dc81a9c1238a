"""Commands on the store as a whole: move it to another database."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from watcher import bootstrap
from watcher.cli_frame import app, load, out, reporting
from watcher.database import build_database
from watcher.moving import move_store


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
