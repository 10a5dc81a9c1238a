"""What the commands have in common: the application, the consoles, errors to exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from watcher.domain.errors import ConfigError, WatcherError
from watcher.domain.redaction import redact
from watcher.domain.visible import make_visible
from watcher.logs import configure_logging
from watcher.settings.root import Settings, load_settings

app = typer.Typer(
    name="watcher",
    help="Registers, thumbnails, embeds and picks every image that arrives in a datasource.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Console(Console):
    """Shows the control characters that a name of a file holds; rich would send them to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=make_visible(segment.text))


# A pipe has no width; tables for one are as wide as they need to be.
out = _Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
err = _Console(stderr=True, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def reporting() -> Iterator[None]:
    """Turns errors into one clear text and an exit code: 2 for what a person must change, 1 for the rest."""
    try:
        yield
    except ConfigError as error:
        _print_error(error)
        raise typer.Exit(2) from None
    except WatcherError as error:
        _print_error(error)
        raise typer.Exit(1) from None


def _print_error(error: Exception) -> None:
    for line in redact(str(error)).splitlines():
        err.print(f"watcher: {line}", markup=False)


def load(*, quiet: bool = False) -> Settings:
    """The settings, with logging set up; `quiet` for commands whose output is the answer, not the log."""
    settings = load_settings(os.environ)
    configure_logging(log_format=settings.log.format, level="WARNING" if quiet else settings.log.level)
    return settings
