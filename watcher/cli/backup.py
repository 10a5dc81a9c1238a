"""Commands that copy an installation and put a copy in its place: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watcher.backup import BackupList, back_up
from watcher.backup import restore as restore_backup
from watcher.cli.frame import app, load, out, reporting
from watcher.domain.clock import SystemClock

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the backup.")]


@app.command()
def backup(folder: FolderArgument) -> None:
    """Copy the SQLite store, and the embedded platform, into a new folder; the daemon may run."""
    with reporting():
        listed = back_up(load(quiet=True), folder, clock=SystemClock())
        _print_list(listed)
        out.print(f"Backed up to {folder}; `watcher restore {folder}` puts it back.", markup=False)


@app.command()
def restore(folder: FolderArgument) -> None:
    """Put a backup in the place of the present installation, which is kept beside it; the daemon must be stopped."""
    with reporting():
        listed = restore_backup(load(quiet=True), folder, clock=SystemClock())
        _print_list(listed)
        out.print(
            f"Restored the state of {listed.made_at}. Start the daemon: it looks for all that arrived since.",
            markup=False,
        )


def _print_list(listed: BackupList) -> None:
    for file in listed.files:
        out.print(f"  {file.name:<16} {file.n_bytes:>14,} bytes", markup=False)
    if listed.n_uploads:
        out.print(f"  {'uploads':<16} {listed.n_uploads:>14,} files", markup=False)
