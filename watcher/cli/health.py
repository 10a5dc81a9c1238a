"""`watcher health` in the list of commands; `watcher.__main__` runs it without loading the others."""

from __future__ import annotations

import sys

import typer

from watcher.cli.frame import app
from watcher.healthcheck import main


@app.command(
    "health",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def health(context: typer.Context) -> None:
    """Ask a process of this machine whether it is alive or ready; what a container's HEALTHCHECK calls."""
    sys.exit(main(context.args))
