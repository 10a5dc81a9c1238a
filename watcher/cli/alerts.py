"""`watcher alerts`: the rules for Prometheus, from the freshness objective."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from watcher.cli.frame import app, load, out, reporting
from watcher.ops.alerts import build_alerts, format_span, render_alerts


@app.command()
def alerts(
    *,
    render: Annotated[
        bool, typer.Option("--render", help="Print the rules as a file for Prometheus.")
    ] = False,
) -> None:
    """The alerts and their limits, as they follow from WATCHER_ALERTS__FRESHNESS_OBJECTIVE_S."""
    with reporting():
        settings = load(quiet=True).alerts
        if render:
            sys.stdout.write(
                render_alerts(objective_s=settings.freshness_objective_s, runbook_url=settings.runbook_url)
            )
            return
        for alert in build_alerts(objective_s=settings.freshness_objective_s):
            out.print(
                f"{alert.name:28} {alert.severity:7} after {format_span(alert.hold_s):6} {alert.description}",
                markup=False,
            )
