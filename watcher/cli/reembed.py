"""The command that changes a watch's embedder."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from watcher.cli.beside import tell_actor
from watcher.cli.control import WatchArgument
from watcher.cli.frame import app, err, load, out, reporting
from watcher.daemon import Daemon
from watcher.domain.clock import SystemClock
from watcher.ops.changes import name_actor
from watcher.ops.tokens import LOCAL
from watcher.signals import watch_signals


@app.command()
def reembed(
    watch: WatchArgument,
    *,
    progress: Annotated[bool, typer.Option(help="Show how far it is.")] = True,
) -> None:
    """Compute all vectors of a watch anew, by the embedder of its settings; stop the daemon first.

    Interrupted, it goes on where it was when run again. The dataset keeps its old embedder until the end.
    """
    with reporting():
        daemon = Daemon(load(quiet=True), changing=watch)
        asked = watch_signals()
        try:
            daemon.open()
            bar = Progress(
                TextColumn("{task.description}"), TextColumn("{task.completed} vectors"), TimeElapsedColumn(),
                console=err, disable=not (progress and err.is_terminal),
            )  # fmt: skip
            with bar:
                task = bar.add_task(watch, total=None)
                from watcher.bootstrap_reembed import build_reembedding  # noqa: PLC0415 - brings numpy and Pillow

                config, watch_id, database, transport = daemon.open_watch(watch)
                report = build_reembedding(
                    daemon.settings,
                    config,
                    database=database,
                    transport=transport,
                    watch_id=watch_id,
                    clock=SystemClock(),
                    stop=asked,
                    actor=name_actor(LOCAL, tell_actor()),
                    say=lambda n: bar.update(task, completed=n),
                ).run()
        finally:
            daemon.stop()
        out.print(
            f"{watch}: {report.n_computed} vectors computed; all {report.n_rows} samples have those of "
            f"{report.embedder} now",
            markup=False,
        )
